//! A model's image processor with the layout of images in its prompts, as `Qwen2_5_VLProcessor`. It has no weights.

use std::path::Path;

use candle_core::Tensor;
use embodied_r_policy::tokenizer::{RenderedChat, Tokenizer, VISION_TOKENS};
use embodied_r_policy::{Prompt, PromptImage};
use image::RgbImage;

use crate::config::{ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::frames::{FrameTimes, Frames, SampledVideo};
use crate::grid::Grid;
use crate::image_embeddings::ImageEmbeddings;
use crate::image_layout::{ImageLayout, Kind, digest, image_digest};
use crate::processor::{PixelOptions, Pixels, Processor, frame_size};
use crate::source::Source;

/// A video in a rendered conversation.
const VIDEO: &str = "<|vision_start|><|video_pad|><|vision_end|>";

/// The image processor, the sizes of the vision tower and the placeholder tokens of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionProcessor {
    config: VisionConfig,
    processor: Processor,
    tokens: ImageTokens,
}

impl VisionProcessor {
    /// The processor of `model`, a folder in Hugging Face's layout or a GGUF file with its `mmproj` next to it.
    ///
    /// # Errors
    /// [`Error::NoVision`], [`Error::NoProcessor`] or [`Error::NoMmproj`] for a text model; [`Error::Patches`] if
    /// processor and vision tower do not fit each other.
    pub fn of_model(model: &Path) -> Result<Self> {
        Self::of_source(&Source::of_model(model)?)
    }

    /// The processor of the hub's model `name`, such as `Qwen/Qwen2.5-VL-7B-Instruct`, for a model whose files are not
    /// here. The organization and `-Instruct` are optional.
    #[must_use]
    pub fn published(name: &str) -> Option<Self> {
        let config = VisionConfig::published(name)?;
        let processor = Processor::published(&config).ok()?;
        Some(Self { config, processor, tokens: ImageTokens::default() })
    }

    pub(crate) fn of_source(source: &Source) -> Result<Self> {
        let (config, tokens) = source.config()?;
        let processor = Processor::of_source(source)?;
        processor.check(&config)?;
        Ok(Self { config, processor, tokens })
    }

    /// The vision tower's configuration.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Checks that a tokenizer has the placeholders of images and videos.
    ///
    /// # Errors
    /// [`Error::NoVisionToken`].
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let [_, _, image, video] = VISION_TOKENS;
        let ImageTokens { image_token_id, video_token_id } = self.tokens;
        let tokens =
            [(image, image_token_id, "image_token_id"), (video, video_token_id, "video_token_id")];
        match tokens.into_iter().find(|(token, id, _)| tokenizer.token_id(token) != Some(*id)) {
            None => Ok(()),
            Some((token, id, field)) => Err(Error::NoVisionToken { token, id, field }),
        }
    }

    /// As [`Self::with_timestamps`], for the videos among the images of a conversation.
    ///
    /// # Errors
    /// As [`Self::with_timestamps`].
    pub fn with_timestamps_of<'a>(
        &self,
        chat: RenderedChat,
        images: impl IntoIterator<Item = &'a ImageLayout>,
    ) -> Result<RenderedChat> {
        let videos = images.into_iter().filter(|layout| layout.is_video());
        self.with_timestamps(chat, videos.map(ImageLayout::timestamps))
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

    /// With other limits on the pixels of images and videos.
    #[must_use]
    pub fn with_pixels(self, options: PixelOptions) -> Self {
        Self { processor: self.processor.with_pixels(options), ..self }
    }

    /// The patch grid of a video of `frames` frames of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn video_grid(&self, frames: usize, size: (u32, u32)) -> Result<Grid> {
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
            Frames::Video(video) => self.video_layout(video),
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

    /// The layout of a video of one or more frames.
    ///
    /// # Errors
    /// [`Error::AspectRatio`]; [`Error::Video`] without frames, if they differ in size, or if their times are not a positive
    /// interval apart or not as many.
    pub fn video_layout(&self, video: &SampledVideo) -> Result<ImageLayout> {
        let SampledVideo { frames, times } = video;
        let grid = self.processor.video_grid(frames.len(), frame_size(frames)?)?;
        if times.starts.len() != frames.len() {
            let (times, frames) = (times.starts.len(), frames.len());
            return Err(Error::Video(format!("a video of {frames} frames has {times} times")));
        }
        let kind = self.video_kind(times)?;
        let digest = digest(frames, &kind);
        Ok(ImageLayout { kind, grid, merge: self.config.spatial_merge_size, digest })
    }

    /// The patches of an image or a video.
    ///
    /// # Errors
    /// [`Error::AspectRatio`].
    pub fn pixels(&self, frames: &Frames) -> Result<Pixels> {
        match frames {
            Frames::Image(image) => self.processor.image(image),
            Frames::Video(video) => self.processor.video(&video.frames),
        }
    }

    /// A video whose frames have these times.
    ///
    /// # Errors
    /// [`Error::Video`] if they are not a positive interval apart.
    fn video_kind(&self, times: &FrameTimes) -> Result<Kind> {
        let seconds = times.interval;
        if !(seconds.is_finite() && seconds > 0.0) {
            let message =
                format!("the seconds between a video's frames must be positive, not {seconds}");
            return Err(Error::Video(message));
        }
        Ok(self.config.family().video(times, self.processor.patch().frames))
    }

    /// The timestamps of the temporal patches of a video in a prompt, as [`ImageLayout::timestamps`].
    ///
    /// # Errors
    /// [`Error::Video`] if the times are not a positive interval apart.
    pub fn timestamps(&self, times: &FrameTimes) -> Result<Vec<String>> {
        Ok(match self.video_kind(times)? {
            Kind::TimestampedVideo { timestamps } => timestamps,
            Kind::Image | Kind::Video { .. } => Vec::new(),
        })
    }

    /// The conversation with the placeholder of each video split into one for each of its timestamps, which stand before
    /// them, as `Qwen3VLProcessor` of `transformers` 4.57. `videos` are the timestamps of each video in order; one without
    /// any keeps its placeholder.
    ///
    /// # Errors
    /// [`Error::VideoCount`] unless there is one video per video placeholder.
    pub fn with_timestamps<'a>(
        &self,
        chat: RenderedChat,
        videos: impl IntoIterator<Item = &'a [String]>,
    ) -> Result<RenderedChat> {
        let videos: Vec<&[String]> = videos.into_iter().collect();
        if videos.iter().all(|timestamps| timestamps.is_empty()) {
            return Ok(chat);
        }
        let mut left = videos.iter();
        let (chat, placeholders) = chat.replace_special(VIDEO, || {
            let timestamps = left.next()?;
            let is_plain = timestamps.is_empty();
            let split =
                || timestamps.iter().map(|timestamp| format!("{timestamp}{VIDEO}")).collect();
            Some(if is_plain { VIDEO.to_owned() } else { split() })
        });
        match placeholders == videos.len() {
            true => Ok(chat),
            false => Err(Error::VideoCount { placeholders, videos: videos.len() }),
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
        let of_kind = |is_video: bool| {
            let visuals = visuals.iter().enumerate();
            let of_kind = visuals.filter(move |(_, (layout, _))| layout.is_video() == is_video);
            of_kind.flat_map(|(index, (layout, _))| {
                std::iter::repeat_n((index, layout.tokens_per_placeholder()), layout.placeholders())
            })
        };
        let placeholders = |of: u32| ids.iter().filter(|id| **id == of).count();
        let (for_images, images) = (placeholders(image_token_id), of_kind(false).count());
        if for_images != images {
            return Err(Error::ImageCount { placeholders: for_images, images });
        }
        let (for_videos, videos) = (placeholders(video_token_id), of_kind(true).count());
        if for_videos != videos {
            return Err(Error::VideoCount { placeholders: for_videos, videos });
        }
        let (mut images, mut videos) = (of_kind(false), of_kind(true));
        let mut expanded = Vec::new();
        let mut offsets = vec![Vec::new(); visuals.len()];
        for id in ids {
            let tokens = match *id {
                id if id == image_token_id => images.next(),
                id if id == video_token_id => videos.next(),
                _ => None,
            };
            if let Some((index, _)) = tokens {
                offsets[index].push(expanded.len());
            }
            expanded.extend(std::iter::repeat_n(*id, tokens.map_or(1, |(_, tokens)| tokens)));
        }
        let in_prompt = visuals.iter().zip(offsets);
        let in_prompt = in_prompt
            .map(|((layout, embeddings), offsets)| layout.in_prompt(&offsets, embeddings.cloned()));
        self.with_images(expanded, in_prompt.collect())
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
                let parts = rows.chunks(visual.tokens_per_placeholder().max(1));
                let is_consecutive =
                    |part: &[usize]| part.windows(2).all(|pair| pair[1] == pair[0] + 1);
                if rows.len() < visual.tokens() || !parts.clone().all(is_consecutive) {
                    let (tokens, placeholders) = (visual.tokens(), rows.len());
                    return Err(Error::PlaceholderTokens {
                        index,
                        placeholder,
                        tokens,
                        placeholders,
                    });
                }
                let offsets: Vec<usize> = parts.filter_map(|part| part.first().copied()).collect();
                in_prompt.push(visual.in_prompt(&offsets, None));
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
        self.with_images(ids.to_vec(), in_prompt)
    }

    fn with_images(&self, ids: Vec<u32>, mut images: Vec<PromptImage>) -> Result<Prompt> {
        images.sort_by_key(PromptImage::offset);
        Ok(Prompt::with_images(ids, images)?)
    }
}
