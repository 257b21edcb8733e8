//! A vision-language model: the decoder and the vision encoder.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use embodied_r_policy::tokenizer::{GenerationPrompt, Tokenizer};
use embodied_r_policy::{InferenceModel, Prompt, TensorParallel, WeightFormat, WeightPlacement};
use image::RgbImage;

use crate::config::{ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::image_embeddings::{ImageEmbeddings, Kind, digest, image_digest};
use crate::message::MultimodalMessage;
use crate::processor::{Pixels, Processor};
use crate::source::Source;
use crate::tower::Tower;

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

/// Patches per batch: enough to keep all threads busy.
const BATCH_PATCHES: usize = 1024;

/// The vision encoder: image processor and vision tower.
pub struct VisionEncoder {
    tower: Tower,
    processor: Processor,
    tokens: ImageTokens,
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
        let patch = processor.patch();
        let fits = patch.side == config.patch_size
            && patch.frames == config.temporal_patch_size
            && patch.merge == config.spatial_merge_size;
        if !fits {
            let message = format!("the processor's {patch:?} does not match the vision tower's");
            return Err(Error::Patches(message));
        }
        let tower = Tower::new(config, source.weights(placement)?.as_ref())?;
        Ok(Self { tower, processor, tokens })
    }

    /// With other limits on the pixels of images and of a video's frames ([`Processor::with_pixels`]).
    #[must_use]
    pub fn with_pixels(self, min_pixels: Option<usize>, max_pixels: Option<usize>) -> Self {
        Self { processor: self.processor.with_pixels(min_pixels, max_pixels), ..self }
    }

    /// The vision tower's configuration.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        self.tower.config()
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

    /// The number of tokens of a video of `frames` frames of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn video_tokens(&self, frames: usize, size: (u32, u32)) -> Result<usize> {
        Ok(self.processor.video_grid(frames, size)?.tokens(self.config().spatial_merge_size))
    }

    /// Encodes images. The embeddings of an image do not depend on the others, to the bit.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn encode_images(&self, images: &[&RgbImage]) -> Result<Vec<ImageEmbeddings>> {
        let mut encoded = Vec::with_capacity(images.len());
        let mut left = images;
        while !left.is_empty() {
            let (batch, rest) = left.split_at(self.batch_size(left)?);
            let pixels = batch.iter().map(|image| self.processor.image(image));
            let pixels: Vec<Pixels> = pixels.collect::<Result<_>>()?;
            let embeddings = self.tower.forward(&pixels.iter().collect::<Vec<_>>())?;
            let parts = pixels.iter().zip(embeddings).zip(batch);
            encoded.extend(parts.map(|((pixels, embeddings), image)| ImageEmbeddings {
                kind: Kind::Image,
                grid: pixels.grid,
                embeddings,
                digest: image_digest(image),
            }));
            left = rest;
        }
        Ok(encoded)
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
        let grids = images.iter().map(|image| self.processor.image_grid(image.dimensions()));
        let grids: Vec<Grid> = grids.collect::<Result<_>>()?;
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
            digest: image_digest(image),
        });
        Ok(encoded.collect())
    }

    /// How many of the first images form a batch: as few as keep all threads busy, so that memory does not grow with
    /// the number of images.
    fn batch_size(&self, images: &[&RgbImage]) -> Result<usize> {
        let mut patches = 0;
        for (index, image) in images.iter().enumerate() {
            patches += self.processor.image_grid(image.dimensions())?.patches();
            if patches >= BATCH_PATCHES {
                return Ok(index + 1);
            }
        }
        Ok(images.len())
    }

    /// The embeddings of images or videos whose patches `pixels` are (tokens, hidden size of the decoder). They do not
    /// depend on the others, to the bit.
    ///
    /// # Errors
    /// [`Error::Patches`] for patches of another processor.
    pub fn encode_pixels(&self, pixels: &[Pixels]) -> Result<Vec<Tensor>> {
        let mut embeddings = Vec::with_capacity(pixels.len());
        let mut left = pixels;
        while !left.is_empty() {
            let mut patches = 0;
            let is_within = |one: &&Pixels| {
                let fits = patches < BATCH_PATCHES;
                patches += one.grid.patches();
                fits
            };
            let (batch, rest) = left.split_at(left.iter().take_while(is_within).count());
            embeddings.extend(self.tower.forward(&batch.iter().collect::<Vec<_>>())?);
            left = rest;
        }
        Ok(embeddings)
    }

    /// Encodes one image.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn encode_image(&self, image: &RgbImage) -> Result<ImageEmbeddings> {
        let pixels = self.processor.image(image)?;
        let embeddings = self.tower.forward(&[&pixels])?.pop();
        let embeddings = embeddings.ok_or(Error::ImageCount { placeholders: 1, images: 0 })?;
        let digest = image_digest(image);
        Ok(ImageEmbeddings { kind: Kind::Image, grid: pixels.grid, embeddings, digest })
    }

    /// Encodes a video of one or more frames, `seconds` apart.
    ///
    /// # Errors
    /// [`Error::AspectRatio`]; [`Error::Video`] without frames, if they differ in size, or if `seconds` is not positive.
    pub fn encode_video(&self, frames: &[RgbImage], seconds: f64) -> Result<ImageEmbeddings> {
        let kind = self.video_kind(seconds)?;
        let pixels = self.processor.video(frames)?;
        let embeddings = self.tower.forward(&[&pixels])?.pop();
        let none = || Error::Video("the vision tower has no embeddings for the video".to_owned());
        let embeddings = embeddings.ok_or_else(none)?;
        Ok(ImageEmbeddings { kind, grid: pixels.grid, embeddings, digest: digest(frames, kind) })
    }

    /// The digest of the embeddings that [`Self::encode_video`] gives.
    ///
    /// # Errors
    /// [`Error::Video`] if `seconds` is not positive.
    pub(crate) fn video_digest(&self, frames: &[RgbImage], seconds: f64) -> Result<u128> {
        Ok(digest(frames, self.video_kind(seconds)?))
    }

    fn video_kind(&self, seconds: f64) -> Result<Kind> {
        if !(seconds.is_finite() && seconds > 0.0) {
            let message =
                format!("the seconds between a video's frames must be positive, not {seconds}");
            return Err(Error::Video(message));
        }
        let second_per_grid = seconds * self.processor.patch().frames as f64;
        Ok(Kind::video(second_per_grid, self.config().tokens_per_second))
    }

    /// The prompt of a conversation, rendered by the model's chat template with a generation prompt, with `images` as in
    /// [`Self::expand_placeholders`].
    ///
    /// # Errors
    /// As [`Self::expand_placeholders`] and [`Tokenizer::apply_chat_template`].
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[MultimodalMessage],
        images: &[ImageEmbeddings],
    ) -> Result<Prompt> {
        let chat = tokenizer.apply_chat_template(messages, GenerationPrompt::Append)?;
        self.expand_placeholders(&tokenizer.encode_chat(&chat)?, images)
    }

    /// The prompt of `ids`. An image placeholder is repeated for the tokens of the next image of `images`, a video
    /// placeholder for those of the next video: images and videos may come in one order in `images` and in another in the
    /// prompt.
    ///
    /// # Errors
    /// [`Error::ImageCount`] unless there is one image per image placeholder, [`Error::VideoCount`] unless there is one
    /// video per video placeholder.
    pub fn expand_placeholders(&self, ids: &[u32], images: &[ImageEmbeddings]) -> Result<Prompt> {
        let ImageTokens { image_token_id, video_token_id } = self.tokens;
        let (videos, images): (Vec<_>, Vec<_>) = images.iter().partition(|image| image.is_video());
        let placeholders = |of: u32| ids.iter().filter(|id| **id == of).count();
        let (for_images, for_videos) = (placeholders(image_token_id), placeholders(video_token_id));
        if for_images != images.len() {
            return Err(Error::ImageCount { placeholders: for_images, images: images.len() });
        }
        if for_videos != videos.len() {
            return Err(Error::VideoCount { placeholders: for_videos, videos: videos.len() });
        }
        let merge = self.config().spatial_merge_size;
        let (mut images, mut videos) = (images.into_iter(), videos.into_iter());
        let (mut expanded, mut in_prompt) = (Vec::new(), Vec::new());
        for id in ids {
            let visual = match *id {
                id if id == image_token_id => images.next(),
                id if id == video_token_id => videos.next(),
                _ => None,
            };
            match visual {
                None => expanded.push(*id),
                Some(visual) => {
                    let visual = visual.in_prompt(expanded.len(), merge);
                    expanded.extend(std::iter::repeat_n(*id, visual.position_ids.len()));
                    in_prompt.push(visual);
                }
            }
        }
        Ok(Prompt::with_images(expanded, in_prompt)?)
    }
}
