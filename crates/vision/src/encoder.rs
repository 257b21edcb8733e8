//! The vision encoder: image processor and vision tower.

use std::path::Path;

use candle_core::Tensor;
use embodied_r_policy::tokenizer::{GenerationPrompt, RenderedChat, Tokenizer};
use embodied_r_policy::{Prompt, TensorParallel};
use image::RgbImage;

use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::frames::{Frames, SampledVideo};
use crate::image_embeddings::ImageEmbeddings;
use crate::image_layout::ImageLayout;
use crate::message::MultimodalMessage;
use crate::options::VisionOptions;
use crate::processor::{PixelOptions, Pixels, Processor};
use crate::source::Source;
use crate::tower::{Tower, batch_lengths};
use crate::vision_processor::VisionProcessor;

/// The vision encoder: image processor and vision tower.
pub struct VisionEncoder {
    tower: Tower,
    processor: VisionProcessor,
}

impl VisionEncoder {
    /// Loads the vision encoder of the model in `dir`, a folder in Hugging Face's layout or a GGUF file with its
    /// `mmproj` next to it.
    ///
    /// # Errors
    /// As [`VisionLanguageModel::load`](crate::VisionLanguageModel::load).
    pub fn load(dir: &Path, options: &VisionOptions) -> Result<Self> {
        let VisionOptions { placement, pixels } = options;
        let source = Source::of_model(dir)?;
        let processor = VisionProcessor::of_source(&source)?.with_pixels(*pixels);
        let weights = source.weights(placement)?;
        let tower = Tower::new(processor.config().clone(), weights.as_ref())?;
        Ok(Self { tower, processor })
    }

    pub(crate) fn of_tower(tower: Tower, processor: VisionProcessor) -> Self {
        Self { tower, processor }
    }

    /// With other limits on the pixels of images and videos.
    #[must_use]
    pub fn with_pixels(self, options: PixelOptions) -> Self {
        Self { processor: self.processor.with_pixels(options), ..self }
    }

    /// Checks that the embeddings are those of a decoder with this hidden size; `dir` is the model's, for the error.
    ///
    /// # Errors
    /// [`Error::HiddenSizes`].
    pub fn check_decoder(&self, dir: &Path, hidden_size: usize) -> Result<()> {
        let found = self.config().out_hidden_size;
        match found == hidden_size {
            true => Ok(()),
            false => Err(Error::HiddenSizes { dir: dir.to_owned(), found, want: hidden_size }),
        }
    }

    /// The vision tower's configuration.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        self.processor.config()
    }

    /// The image processor.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        self.processor.processor()
    }

    /// The image processor with the layout of images in prompts.
    #[must_use]
    pub fn vision_processor(&self) -> &VisionProcessor {
        &self.processor
    }

    /// The number of tokens of an image of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn image_tokens(&self, size: (u32, u32)) -> Result<usize> {
        self.processor.image_tokens(size)
    }

    /// The number of tokens of a video of `frames` frames of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn video_tokens(&self, frames: usize, size: (u32, u32)) -> Result<usize> {
        self.processor.video_tokens(frames, size)
    }

    /// Encodes images. The embeddings of an image do not depend on the others, to the bit.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn encode_images(&self, images: &[&RgbImage]) -> Result<Vec<ImageEmbeddings>> {
        let layouts = self.layouts(images)?;
        let mut encoded = Vec::with_capacity(images.len());
        let (mut left, mut layouts) = (images, layouts.into_iter());
        // In batches, so that memory does not grow with the number of images.
        for length in batch_lengths(layouts.clone().map(|layout| layout.grid().patches())) {
            let (batch, rest) = left.split_at(length);
            left = rest;
            let pixels = batch.iter().map(|image| self.processor().image(image));
            let pixels: Vec<Pixels> = pixels.collect::<Result<_>>()?;
            let embeddings = self.tower.forward(&pixels.iter().collect::<Vec<_>>())?;
            let parts = layouts.by_ref().take(length).zip(embeddings);
            encoded
                .extend(parts.map(|(layout, embeddings)| ImageEmbeddings { layout, embeddings }));
        }
        Ok(encoded)
    }

    fn layouts(&self, images: &[&RgbImage]) -> Result<Vec<ImageLayout>> {
        images.iter().map(|image| self.processor.image_layout(image)).collect()
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
        let layouts = self.layouts(images)?;
        let is_own = |index: usize| index % ranks.world_size() == ranks.rank();
        let own: Vec<&RgbImage> =
            (0..images.len()).filter(|i| is_own(*i)).map(|i| images[i]).collect();
        let mut own = self.encode_images(&own)?.into_iter();
        let (hidden, levels) = (self.config().out_hidden_size, self.config().feature_levels());
        let parts = layouts.iter().enumerate().map(|(index, layout)| {
            let encoded = if is_own(index) { own.next() } else { None };
            ((levels * layout.tokens(), hidden), encoded.map(|encoded| encoded.embeddings))
        });
        let embeddings = ranks.broadcast_matrices(parts.collect())?;
        let encoded = layouts.into_iter().zip(embeddings);
        Ok(encoded.map(|(layout, embeddings)| ImageEmbeddings { layout, embeddings }).collect())
    }

    /// The embeddings of images or videos by their patches (levels · tokens, hidden size of the decoder). They do not depend on
    /// the others, to the bit.
    ///
    /// # Errors
    /// [`Error::Patches`] for patches of another processor.
    pub fn encode_pixels(&self, pixels: &[&Pixels]) -> Result<Vec<Tensor>> {
        let mut embeddings = Vec::with_capacity(pixels.len());
        let mut left = pixels;
        for length in batch_lengths(pixels.iter().map(|image| image.grid.patches())) {
            let (batch, rest) = left.split_at(length);
            left = rest;
            embeddings.extend(self.tower.forward(batch)?);
        }
        Ok(embeddings)
    }

    /// Encodes one image.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn encode_image(&self, image: &RgbImage) -> Result<ImageEmbeddings> {
        self.encoded(self.processor.image_layout(image)?, &self.processor().image(image)?)
    }

    /// Encodes a video of one or more frames.
    ///
    /// # Errors
    /// As [`VisionProcessor::video_layout`].
    pub fn encode_video(&self, video: &SampledVideo) -> Result<ImageEmbeddings> {
        let layout = self.processor.video_layout(video)?;
        self.encoded(layout, &self.processor().video(&video.frames)?)
    }

    /// Encodes an image or a video.
    ///
    /// # Errors
    /// As [`Self::encode_image`] and [`Self::encode_video`].
    pub fn encode(&self, frames: &Frames) -> Result<ImageEmbeddings> {
        self.encoded(self.processor.layout(frames)?, &self.processor.pixels(frames)?)
    }

    fn encoded(&self, layout: ImageLayout, pixels: &Pixels) -> Result<ImageEmbeddings> {
        let none = || Error::ImageCount { placeholders: 1, images: 0 };
        let embeddings = self.tower.forward(&[pixels])?.pop().ok_or_else(none)?;
        Ok(ImageEmbeddings { layout, embeddings })
    }

    /// The prompt of a conversation, rendered by the model's chat template with a generation prompt, with `images` as in
    /// [`Self::expand_placeholders`] and the timestamps of videos.
    ///
    /// # Errors
    /// As [`Self::chat_prompt`] and [`Tokenizer::apply_chat_template`].
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[MultimodalMessage],
        images: &[ImageEmbeddings],
    ) -> Result<Prompt> {
        let chat = tokenizer.apply_chat_template(messages, GenerationPrompt::Append)?;
        self.chat_prompt(tokenizer, &chat, images)
    }

    /// The prompt of a rendered conversation, with `images` as in [`Self::expand_placeholders`] and the timestamps of
    /// videos.
    ///
    /// # Errors
    /// As [`VisionProcessor::with_timestamps`], [`Tokenizer::encode_chat`] and [`Self::expand_placeholders`].
    pub fn chat_prompt(
        &self,
        tokenizer: &Tokenizer,
        chat: &RenderedChat,
        images: &[ImageEmbeddings],
    ) -> Result<Prompt> {
        let layouts = images.iter().map(ImageEmbeddings::layout);
        let chat = self.processor.with_timestamps_of(chat.clone(), layouts)?;
        self.expand_placeholders(&tokenizer.encode_chat(&chat)?, images)
    }

    /// The prompt of `ids` with `images` in place of their placeholders, as [`VisionProcessor::prompt`].
    ///
    /// # Errors
    /// As [`VisionProcessor::prompt`].
    pub fn expand_placeholders(&self, ids: &[u32], images: &[ImageEmbeddings]) -> Result<Prompt> {
        self.processor.embedded_prompt(ids, images)
    }
}
