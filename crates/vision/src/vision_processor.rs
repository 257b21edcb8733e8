//! A model's image processor with the layout of images in its prompts, as `Qwen2_5_VLProcessor`. It has no weights.

use std::path::Path;

use embodied_r_policy::Prompt;
use image::RgbImage;

use crate::config::{ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::frames::Frames;
use crate::image_embeddings::{Kind, digest, image_digest};
use crate::image_layout::ImageLayout;
use crate::processor::{Pixels, Processor};
use crate::source::Source;

/// The image processor, the sizes of the vision tower and the placeholder tokens of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionProcessor {
    config: VisionConfig,
    processor: Processor,
    tokens: ImageTokens,
    max_pixels: Option<usize>,
}

impl VisionProcessor {
    /// The processor of `model`, a folder in Hugging Face's layout or a GGUF file with its `mmproj` next to it; images
    /// are reduced to `max_pixels` if that is less than the model's own limit.
    ///
    /// # Errors
    /// [`Error::NoVision`], [`Error::NoProcessor`] or [`Error::NoMmproj`] for a text model; [`Error::Patches`] if
    /// processor and vision tower do not fit each other.
    pub fn of_model(model: &Path, max_pixels: Option<usize>) -> Result<Self> {
        Self::of_source(&Source::of_model(model)?, max_pixels)
    }

    pub(crate) fn of_source(source: &Source, max_pixels: Option<usize>) -> Result<Self> {
        let (config, tokens) = source.config()?;
        let processor = Processor::of_source(source)?;
        let processor = match max_pixels {
            Some(max_pixels) => processor.with_max_pixels(max_pixels),
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
        Ok(Self { config, processor, tokens, max_pixels })
    }

    /// The vision tower's configuration.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// The image processor.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// The limit that images are reduced to, if it is not the model's own.
    #[must_use]
    pub fn max_pixels(&self) -> Option<usize> {
        self.max_pixels
    }

    /// The number of tokens of an image of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn image_tokens(&self, size: (u32, u32)) -> Result<usize> {
        Ok(self.processor.image_grid(size)?.tokens(self.config.spatial_merge_size))
    }

    /// The layout of an image or a video.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn layout(&self, frames: &Frames) -> Result<ImageLayout> {
        let merge = self.config.spatial_merge_size;
        match frames {
            Frames::Image(image) => {
                let grid = self.processor.image_grid(image.dimensions())?;
                Ok(ImageLayout { kind: Kind::Image, grid, merge, digest: image_digest(image) })
            }
            Frames::Video { frames, seconds } => {
                let size = frames.first().map_or((0, 0), RgbImage::dimensions);
                let grid = self.processor.video_grid(size, frames.len())?;
                let kind = self.video_kind(*seconds);
                Ok(ImageLayout { kind, grid, merge, digest: digest(frames, kind) })
            }
        }
    }

    /// The patches of an image or a video.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn pixels(&self, frames: &Frames) -> Result<Pixels> {
        match frames {
            Frames::Image(image) => self.processor.image(image),
            Frames::Video { frames, .. } => self.processor.video(frames),
        }
    }

    /// A video with frames `seconds` apart.
    pub(crate) fn video_kind(&self, seconds: f64) -> Kind {
        let per_patch = seconds * self.processor.patch().frames as f64;
        Kind::Video { interval: per_patch * self.config.tokens_per_second }
    }

    /// The prompt of `ids`, with each placeholder repeated for the tokens of the next of `images`.
    ///
    /// # Errors
    /// [`Error::ImageCount`] unless there is one image per placeholder.
    pub fn prompt(&self, ids: &[u32], images: &[ImageLayout]) -> Result<Prompt> {
        let ImageTokens { image_token_id, video_token_id } = self.tokens;
        let is_placeholder = |id: &&u32| [image_token_id, video_token_id].contains(id);
        let placeholders = ids.iter().filter(is_placeholder).count();
        if placeholders != images.len() {
            return Err(Error::ImageCount { placeholders, images: images.len() });
        }
        let (mut expanded, mut in_prompt, mut images) = (Vec::new(), Vec::new(), images.iter());
        for id in ids {
            match Some(id).filter(is_placeholder).and_then(|_| images.next()) {
                None => expanded.push(*id),
                Some(image) => {
                    in_prompt.push(image.in_prompt(expanded.len(), None));
                    expanded.extend(std::iter::repeat_n(*id, image.tokens()));
                }
            }
        }
        Ok(Prompt::with_images(expanded, in_prompt)?)
    }
}
