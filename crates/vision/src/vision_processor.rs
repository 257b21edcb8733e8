//! A model's image processor with the layout of images in its prompts, as `Qwen2_5_VLProcessor`. It has no weights.

use std::path::Path;

use candle_core::Tensor;
use embodied_r_policy::{Prompt, PromptImage};
use image::RgbImage;

use crate::config::{ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::family::Family;
use crate::frames::Frames;
use crate::grid::Grid;
use crate::image_embeddings::ImageEmbeddings;
use crate::image_layout::{ImageLayout, Kind, digest, image_digest};
use crate::processor::{Pixels, Processor, frame_size};
use crate::source::Source;

/// The image processor, the sizes of the vision tower and the placeholder tokens of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionProcessor {
    config: VisionConfig,
    processor: Processor,
    tokens: ImageTokens,
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

    /// The processor of the hub's model `name`, such as `Qwen/Qwen2.5-VL-7B-Instruct`, for a model whose files are not
    /// here. The organization and `-Instruct` are optional.
    #[must_use]
    pub fn published(name: &str) -> Option<Self> {
        let config = VisionConfig::published(name)?;
        let processor = Processor::published(&config).ok()?;
        Some(Self { config, processor, tokens: ImageTokens::default() })
    }

    pub(crate) fn of_source(source: &Source, max_pixels: Option<usize>) -> Result<Self> {
        let (config, tokens) = source.config()?;
        let processor = Processor::of_source(source)?;
        let processor = match max_pixels {
            Some(max_pixels) => processor.with_max_pixels(max_pixels),
            None => processor,
        };
        processor.check(&config)?;
        Ok(Self { config, processor, tokens })
    }

    /// The vision tower's configuration.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// The placeholder of an image.
    #[must_use]
    pub fn image_token_id(&self) -> u32 {
        self.tokens.image_token_id
    }

    /// The image processor.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// With other limits on the pixels of images and of a video's frames ([`Processor::with_pixels`]).
    #[must_use]
    pub fn with_pixels(self, min_pixels: Option<usize>, max_pixels: Option<usize>) -> Self {
        Self { processor: self.processor.with_pixels(min_pixels, max_pixels), ..self }
    }

    /// The patch grid of a video of `frames` frames of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`]; [`Error::Video`] for a family without videos.
    pub fn video_grid(&self, frames: usize, size: (u32, u32)) -> Result<Grid> {
        self.video_kind(1.0)?;
        self.processor.video_grid(frames, size)
    }

    /// The number of tokens of a video of `frames` frames of `size`, in pixels.
    ///
    /// # Errors
    /// As [`Self::video_grid`].
    pub fn video_tokens(&self, frames: usize, size: (u32, u32)) -> Result<usize> {
        Ok(self.video_grid(frames, size)?.tokens(self.config.spatial_merge_size))
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
    /// As [`Self::image_layout`] and [`Self::video_layout`].
    pub fn layout(&self, frames: &Frames) -> Result<ImageLayout> {
        match frames {
            Frames::Image(image) => self.image_layout(image),
            Frames::Video { frames, seconds } => self.video_layout(frames, *seconds),
        }
    }

    /// The layout of an image.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn image_layout(&self, image: &RgbImage) -> Result<ImageLayout> {
        let grid = self.processor.image_grid(image.dimensions())?;
        let merge = self.config.spatial_merge_size;
        Ok(ImageLayout { kind: Kind::Image, grid, merge, digest: image_digest(image) })
    }

    /// The layout of a video of one or more frames, `seconds` apart.
    ///
    /// # Errors
    /// [`Error::AspectRatio`]; [`Error::Video`] without frames, if they differ in size, or if `seconds` is not positive.
    pub fn video_layout(&self, frames: &[RgbImage], seconds: f64) -> Result<ImageLayout> {
        let grid = self.processor.video_grid(frames.len(), frame_size(frames)?)?;
        let kind = self.video_kind(seconds)?;
        let merge = self.config.spatial_merge_size;
        Ok(ImageLayout { kind, grid, merge, digest: digest(frames, kind) })
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
    ///
    /// # Errors
    /// [`Error::Video`] if `seconds` is not positive.
    pub(crate) fn video_kind(&self, seconds: f64) -> Result<Kind> {
        if !(seconds.is_finite() && seconds > 0.0) {
            let message =
                format!("the seconds between a video's frames must be positive, not {seconds}");
            return Err(Error::Video(message));
        }
        let second_per_grid = seconds * self.processor.patch().frames as f64;
        match self.config.family_fields() {
            Family::Qwen25Vl(family) => Ok(Kind::video(second_per_grid, family.tokens_per_second)),
            Family::Qwen3Vl(_) => {
                Err(Error::Video("videos of Qwen3-VL are not supported yet".into()))
            }
        }
    }

    /// The prompt of `ids` without embeddings. An image placeholder is repeated for the tokens of the next image of
    /// `images`, a video placeholder for those of the next video: images and videos may come in one order in `images`
    /// and in another in the prompt.
    ///
    /// # Errors
    /// [`Error::ImageCount`] unless there is one image per image placeholder, [`Error::VideoCount`] unless there is one
    /// video per video placeholder.
    pub fn prompt(&self, ids: &[u32], images: &[ImageLayout]) -> Result<Prompt> {
        self.place(ids, images.iter().map(|layout| (layout, None)).collect())
    }

    /// As [`Self::prompt`], with embeddings.
    ///
    /// # Errors
    /// As [`Self::prompt`].
    pub fn embedded_prompt(&self, ids: &[u32], images: &[ImageEmbeddings]) -> Result<Prompt> {
        let images = images.iter().map(|image| (image.layout(), Some(image.embeddings())));
        self.place(ids, images.collect())
    }

    fn place(&self, ids: &[u32], visuals: Vec<(&ImageLayout, Option<&Tensor>)>) -> Result<Prompt> {
        let ImageTokens { image_token_id, video_token_id } = self.tokens;
        let (videos, images): (Vec<_>, Vec<_>) =
            visuals.into_iter().partition(|(layout, _)| layout.is_video());
        let placeholders = |of: u32| ids.iter().filter(|id| **id == of).count();
        let (for_images, for_videos) = (placeholders(image_token_id), placeholders(video_token_id));
        if for_images != images.len() {
            return Err(Error::ImageCount { placeholders: for_images, images: images.len() });
        }
        if for_videos != videos.len() {
            return Err(Error::VideoCount { placeholders: for_videos, videos: videos.len() });
        }
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
                Some((layout, embeddings)) => {
                    in_prompt.push(layout.in_prompt(expanded.len(), embeddings.cloned()));
                    expanded.extend(std::iter::repeat_n(*id, layout.tokens()));
                }
            }
        }
        Ok(Prompt::with_images(expanded, in_prompt)?)
    }

    /// The prompt of `ids` that have a placeholder for each token of an image or a video, as the model sees them, without
    /// embeddings. Images and videos are in the order of their placeholders, each kind by itself.
    ///
    /// # Errors
    /// [`Error::PlaceholderTokens`] unless there are as many placeholders as tokens.
    pub fn expanded_prompt(&self, ids: &[u32], images: &[ImageLayout]) -> Result<Prompt> {
        let ImageTokens { image_token_id, video_token_id } = self.tokens;
        let (videos, images): (Vec<&ImageLayout>, Vec<_>) =
            images.iter().partition(|image| image.is_video());
        let mut in_prompt = Vec::new();
        for (placeholder, visuals) in [(image_token_id, images), (video_token_id, videos)] {
            let mut found = ids.iter().enumerate().filter(|(_, id)| **id == placeholder);
            for (index, visual) in visuals.iter().enumerate() {
                let rows: Vec<usize> =
                    found.by_ref().take(visual.tokens()).map(|(row, _)| row).collect();
                let offset = rows.first().copied().unwrap_or_default();
                let is_whole = rows.len() == visual.tokens()
                    && rows.iter().zip(offset..).all(|(row, expected)| *row == expected);
                if !is_whole {
                    let (tokens, placeholders) = (visual.tokens(), rows.len());
                    return Err(Error::PlaceholderTokens {
                        index,
                        placeholder,
                        tokens,
                        placeholders,
                    });
                }
                in_prompt.push(visual.in_prompt(offset, None));
            }
            let left = found.count();
            if left > 0 {
                let index = visuals.len();
                return Err(Error::PlaceholderTokens {
                    index,
                    placeholder,
                    tokens: 0,
                    placeholders: left,
                });
            }
        }
        in_prompt.sort_by_key(PromptImage::offset);
        Ok(Prompt::with_images(ids.to_vec(), in_prompt)?)
    }
}
