//! A vision-language model: the decoder and the vision encoder.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use embodied_r_policy::tokenizer::{GenerationPrompt, Tokenizer};
use embodied_r_policy::{InferenceModel, Prompt, TensorParallel, WeightFormat, WeightPlacement};
use image::RgbImage;

use crate::config::{ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::image_embeddings::{ImageEmbeddings, Kind, digest, versioned};
use crate::message::MultimodalMessage;
use crate::prepared_image::PreparedImage;
use crate::processor::{Pixels, Processor};
use crate::source::Source;
use crate::tower::{Tower, batch_lengths};

/// A Qwen2.5-VL model for inference. Clones share the weights.
#[derive(Clone)]
pub struct VisionLanguageModel {
    decoder: Arc<InferenceModel>,
    vision_encoder: Arc<VisionEncoder>,
}

/// Options for loading a vision-language model.
#[derive(Debug, Clone)]
pub struct VisionOptions {
    /// Weight format and device of decoder and vision tower; weights of GGUF files keep their format.
    pub placement: WeightPlacement,
    /// Larger images are reduced to this many pixels. `None` uses the processor's limit.
    pub max_pixels: Option<usize>,
}

impl From<WeightFormat> for VisionOptions {
    fn from(format: WeightFormat) -> Self {
        Self { placement: format.into(), max_pixels: None }
    }
}

/// Whether the model in `dir`, a folder or a GGUF file, is a vision-language model. A GGUF file is if it has an
/// `mmproj` file next to it, valid or not.
#[must_use]
pub fn is_vision_language_model(dir: &Path) -> bool {
    Source::exists(dir)
}

/// Checks, from the headers of its files, that the vision encoder of `model` can be loaded.
///
/// # Errors
/// As [`VisionEncoder::load`].
pub fn check_headers(model: &Path) -> Result<()> {
    let source = Source::of_model(model)?;
    let (config, _) = source.config()?;
    Processor::of_source(&source)?;
    let placement = WeightPlacement { format: WeightFormat::F32, device: Device::Cpu };
    let weights = source.weights(&placement)?;
    Tower::parts(&config).iter().try_for_each(|part| weights.check(part, &config))
}

/// The vision encoder: image processor and vision tower.
pub struct VisionEncoder {
    tower: Tower,
    processor: Processor,
    tokens: ImageTokens,
    /// Of the weights, if they are trained.
    version: u64,
}

impl VisionLanguageModel {
    /// Loads the model in `dir`, a folder in Hugging Face's layout or a GGUF file with its `mmproj` next to it.
    ///
    /// # Errors
    /// [`Error::NoVision`], [`Error::NoProcessor`] and [`Error::NoMmproj`] for a text model, and those of
    /// [`InferenceModel::load`].
    pub fn load(dir: &Path, options: &VisionOptions) -> Result<Self> {
        Self::load_part(dir, options, &TensorParallel::single_rank())
    }

    /// [`Self::load`] for one tensor-parallel rank: its shard of the decoder, and the whole vision tower, because images
    /// are partitioned over the ranks ([`VisionEncoder::encode_images_over`]).
    ///
    /// # Errors
    /// As [`Self::load`], and those of [`InferenceModel::load_shard`].
    pub fn load_part(dir: &Path, options: &VisionOptions, ranks: &TensorParallel) -> Result<Self> {
        // The small files come first, so that a missing one is reported quickly.
        let vision_encoder = VisionEncoder::load(dir, options)?;
        let decoder = InferenceModel::load_shard(dir, options.placement.clone(), ranks)?;
        let (found, want) = (vision_encoder.config().out_hidden_size, decoder.config().hidden_size);
        if found != want {
            return Err(Error::HiddenSizes { dir: dir.to_owned(), found, want });
        }
        Ok(Self { decoder: Arc::new(decoder), vision_encoder: Arc::new(vision_encoder) })
    }

    /// The decoder, for an engine.
    #[must_use]
    pub fn decoder(&self) -> &Arc<InferenceModel> {
        &self.decoder
    }

    /// The vision encoder.
    #[must_use]
    pub fn vision_encoder(&self) -> &Arc<VisionEncoder> {
        &self.vision_encoder
    }
}

impl VisionEncoder {
    /// Loads the vision encoder of the model in `dir`, a folder in Hugging Face's layout or a GGUF file with its
    /// `mmproj` next to it.
    ///
    /// # Errors
    /// As [`VisionLanguageModel::load`].
    pub fn load(dir: &Path, options: &VisionOptions) -> Result<Self> {
        let VisionOptions { placement, max_pixels } = options;
        let source = Source::of_model(dir)?;
        let (config, tokens) = source.config()?;
        let processor = Processor::of_source(&source)?;
        let processor = match max_pixels {
            Some(max_pixels) => processor.with_max_pixels(*max_pixels),
            None => processor,
        };
        processor.check(&config)?;
        let tower = Tower::new(config, source.weights(placement)?.as_ref())?;
        Ok(Self::of_tower(tower, processor, tokens, 0))
    }

    /// An encoder with this version of a tower's weights.
    pub(crate) fn of_tower(
        tower: Tower,
        processor: Processor,
        tokens: ImageTokens,
        version: u64,
    ) -> Self {
        Self { tower, processor, tokens, version }
    }

    /// The vision tower's configuration.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        self.tower.config()
    }

    /// The placeholder tokens.
    #[must_use]
    pub fn tokens(&self) -> ImageTokens {
        self.tokens
    }

    /// The image processor.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// The number of tokens of an image of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn image_tokens(&self, size: (u32, u32)) -> Result<usize> {
        Ok(self.processor.image_grid(size)?.tokens(self.config().spatial_merge_size))
    }

    /// Encodes images. The embeddings of an image do not depend on the others, to the bit.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn encode_images(&self, images: &[&RgbImage]) -> Result<Vec<ImageEmbeddings>> {
        let grids = self.grids(images)?;
        let mut encoded = Vec::with_capacity(images.len());
        let mut left = images;
        // In batches, so that memory does not grow with the number of images.
        for length in batch_lengths(grids.iter().map(Grid::patches)) {
            let (batch, rest) = left.split_at(length);
            left = rest;
            let prepared = batch.iter().map(|image| PreparedImage::image(&self.processor, image));
            let prepared: Vec<PreparedImage> = prepared.collect::<Result<_>>()?;
            let pixels: Vec<&Pixels> = prepared.iter().map(PreparedImage::pixels).collect();
            let embeddings = self.tower.forward(&pixels)?;
            let parts = prepared.iter().zip(embeddings);
            encoded.extend(parts.map(|(image, tokens)| image.embedded(tokens, self.version)));
        }
        Ok(encoded)
    }

    /// The patch grid of each image.
    fn grids(&self, images: &[&RgbImage]) -> Result<Vec<Grid>> {
        images.iter().map(|image| self.processor.image_grid(image.dimensions())).collect()
    }

    /// The digest of an image's embeddings.
    pub(crate) fn image_digest(&self, image: &RgbImage) -> u128 {
        versioned(digest(std::slice::from_ref(image), Kind::Image), self.version)
    }

    /// [`Self::encode_images`] on ranks that all make the same call: images are partitioned over the ranks, and their
    /// embeddings all-gathered. Every rank has the whole tower: a tensor-parallel tower would communicate an image's
    /// patches twice per block, this communicates its tokens once.
    ///
    /// # Errors
    /// As [`Self::encode_images`], and when a rank fails.
    pub fn encode_images_over(
        &self,
        images: &[&RgbImage],
        ranks: &TensorParallel,
    ) -> Result<Vec<ImageEmbeddings>> {
        if ranks.is_single_rank() {
            return self.encode_images(images);
        }
        let grids = self.grids(images)?;
        let is_own = |index: usize| index % ranks.world_size() == ranks.rank();
        let own: Vec<&RgbImage> =
            (0..images.len()).filter(|i| is_own(*i)).map(|i| images[i]).collect();
        let mut own = self.encode_images(&own)?.into_iter();
        let VisionConfig { spatial_merge_size: merge, out_hidden_size: hidden, .. } =
            *self.config();
        let parts = grids.iter().enumerate().map(|(index, grid)| {
            let encoded = if is_own(index) { own.next() } else { None };
            ((grid.tokens(merge), hidden), encoded.map(|encoded| encoded.embeddings))
        });
        let embeddings = ranks.broadcast_matrices(parts.collect())?;
        let encoded = embeddings.into_iter().zip(grids).zip(images);
        let encoded = encoded.map(|((embeddings, grid), image)| ImageEmbeddings {
            kind: Kind::Image,
            grid,
            embeddings,
            digest: self.image_digest(image),
        });
        Ok(encoded.collect())
    }

    /// Encodes one image.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn encode_image(&self, image: &RgbImage) -> Result<ImageEmbeddings> {
        self.encode(&PreparedImage::image(&self.processor, image)?)
    }

    /// Encodes a video of one or more frames, `seconds` apart.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn encode_video(&self, frames: &[RgbImage], seconds: f64) -> Result<ImageEmbeddings> {
        self.encode(&PreparedImage::video(&self.processor, frames, seconds, self.config())?)
    }

    fn encode(&self, image: &PreparedImage) -> Result<ImageEmbeddings> {
        let embeddings = self.tower.forward(&[image.pixels()])?.pop();
        let embeddings = embeddings.ok_or(Error::ImageCount { placeholders: 1, images: 0 })?;
        Ok(image.embedded(embeddings, self.version))
    }

    /// The prompt of a conversation, rendered by the model's chat template with a generation prompt. Each placeholder
    /// is replaced by the next of `images`.
    ///
    /// # Errors
    /// [`Error::ImageCount`] unless there is one image per placeholder, and those of [`Tokenizer::apply_chat_template`].
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[MultimodalMessage],
        images: &[ImageEmbeddings],
    ) -> Result<Prompt> {
        let chat = tokenizer.apply_chat_template(messages, GenerationPrompt::Append)?;
        self.expand_placeholders(&tokenizer.encode_chat(&chat)?, images)
    }

    /// The prompt of `ids`, with each placeholder repeated for the tokens of the next of `images`.
    ///
    /// # Errors
    /// [`Error::ImageCount`] unless there is one image per placeholder.
    pub fn expand_placeholders(&self, ids: &[u32], images: &[ImageEmbeddings]) -> Result<Prompt> {
        let ImageTokens { image_token_id, video_token_id } = self.tokens;
        let is_placeholder = |id: &&u32| [image_token_id, video_token_id].contains(id);
        let placeholders = ids.iter().filter(is_placeholder).count();
        if placeholders != images.len() {
            return Err(Error::ImageCount { placeholders, images: images.len() });
        }
        let merge = self.config().spatial_merge_size;
        let (mut expanded, mut in_prompt, mut images) = (Vec::new(), Vec::new(), images.iter());
        for id in ids {
            match Some(id).filter(is_placeholder).and_then(|_| images.next()) {
                None => expanded.push(*id),
                Some(image) => {
                    let image = image.in_prompt(expanded.len(), merge);
                    expanded.extend(std::iter::repeat_n(*id, image.position_ids.len()));
                    in_prompt.push(image);
                }
            }
        }
        Ok(Prompt::with_images(expanded, in_prompt)?)
    }
}
