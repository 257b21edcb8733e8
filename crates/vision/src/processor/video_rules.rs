//! What the video processors of the families do differently.

use serde::{Deserialize, Serialize};

use super::patch::Patch;
use crate::error::Result;
use crate::grid::{PixelLimits, smart_resize, smart_resize_clip};

/// What a checkpoint's limits on the pixels of a video apply to. Families whose processor limits each frame alone, such as
/// Qwen2.5-VL, know `frame` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoPixels {
    /// The whole clip: a short clip has larger frames than a long one. As `Qwen3VLVideoProcessor`.
    #[default]
    Clip,
    /// Each frame, of at most 768 tokens and its share of the clip, as `Qwen3VLVideoProcessor` with `cap_pixels_per_frame`.
    Frame,
}

/// Limits on the pixels of images and of the frames of videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PixelOptions {
    /// Replaces the checkpoint's least, as in `qwen-vl-utils`.
    pub min_pixels: Option<usize>,
    /// Lowers the checkpoint's most, also where small images are enlarged.
    pub max_pixels: Option<usize>,
    /// What the checkpoint's own limits apply to in videos, if its family's processor leaves a choice.
    pub video_pixels: Option<VideoPixels>,
}

impl PixelOptions {
    /// At most this many pixels, or as many as the checkpoint allows.
    #[must_use]
    pub fn at_most(max_pixels: Option<usize>) -> Self {
        Self { max_pixels, ..Self::default() }
    }
}

/// How a rate, or a number of frames, selects those of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameSampling {
    /// An even number of frames (`smart_nframes` of `qwen-vl-utils`).
    Even,
    /// Any number of frames (`Qwen3VLVideoProcessor`).
    Any,
}

/// What a family's video processor does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VideoRules {
    /// What the limits on pixels apply to, unless a checkpoint says otherwise.
    pub(crate) pixels: VideoPixels,
    /// The limits of its class.
    pub(crate) default_limits: PixelLimits,
    /// Whether its settings are in a file of its own, and not those for images without it.
    pub(crate) own_file: bool,
    pub(crate) sampling: FrameSampling,
}

/// What the limits on pixels apply to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ResizeRule {
    /// Each frame. Frames share nine tenths of these tokens, if there are any.
    Frames { shared_tokens: Option<usize> },
    /// All frames together.
    Clip(ClipRule),
}

/// Limits on all frames of a clip together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClipRule {
    pixels: VideoPixels,
    /// The most tokens of a frame with [`VideoPixels::Frame`].
    frame_tokens: usize,
    /// Further limits on the pixels of each frame.
    least: Option<usize>,
    most: Option<usize>,
}

impl Default for ResizeRule {
    /// An image is limited by itself.
    fn default() -> Self {
        Self::Frames { shared_tokens: None }
    }
}

impl VideoRules {
    /// The rule of a checkpoint with `max_video_tokens`, and with or without `cap_pixels_per_frame`.
    pub(crate) fn resize(&self, max_video_tokens: Option<usize>, cap: bool) -> ResizeRule {
        let pixels = if cap { VideoPixels::Frame } else { self.pixels };
        match self.pixels {
            VideoPixels::Frame => ResizeRule::Frames {
                shared_tokens: cap.then_some(max_video_tokens.unwrap_or(128_000)),
            },
            VideoPixels::Clip => {
                let frame_tokens = max_video_tokens.unwrap_or(768);
                ResizeRule::Clip(ClipRule { pixels, frame_tokens, least: None, most: None })
            }
        }
    }
}

impl ResizeRule {
    /// What the limits apply to.
    pub(crate) fn pixels(&self) -> VideoPixels {
        match self {
            Self::Frames { .. } => VideoPixels::Frame,
            Self::Clip(clip) => clip.pixels,
        }
    }

    /// Limits each frame, if the family's processor can limit frames and clips.
    pub(super) fn set_pixels(&mut self, pixels: VideoPixels) {
        if let Self::Clip(clip) = self {
            clip.pixels = pixels;
        }
    }

    /// Limits images and frames: `least` replaces the checkpoint's, `most` lowers it.
    pub(super) fn limit(
        &mut self,
        limits: &mut PixelLimits,
        least: Option<usize>,
        most: Option<usize>,
    ) {
        match self {
            Self::Frames { .. } => {
                let PixelLimits { min_pixels, max_pixels } = limits;
                *min_pixels = least.map_or(*min_pixels, |least| least.min(*max_pixels));
                *max_pixels = most.map_or(*max_pixels, |most| most.min(*max_pixels));
                *min_pixels = (*min_pixels).min(*max_pixels);
            }
            Self::Clip(clip) => {
                clip.least = least.or(clip.least);
                clip.most = most.into_iter().chain(clip.most).min();
            }
        }
    }

    /// The size that each of `frames` frames of `size` is resized to.
    pub(super) fn resized(
        &self,
        size: (u32, u32),
        frames: usize,
        limits: PixelLimits,
        patch: Patch,
    ) -> Result<(u32, u32)> {
        let factor = patch.side * patch.merge;
        match self {
            Self::Frames { shared_tokens } => {
                let limits =
                    shared_tokens.map_or(limits, |tokens| shared(limits, tokens, frames, patch));
                smart_resize(size, factor, limits)
            }
            Self::Clip(clip) => {
                // A single frame fills a patch.
                let frames = frames.max(patch.frames);
                let limits = clip.limits(limits, frames, factor);
                smart_resize_clip(size, factor, limits, (frames, patch.frames))
            }
        }
    }
}

/// The limits on each of `frames` frames that share `tokens` (`cap_pixels_per_frame` of `Qwen2VLVideoProcessor`).
fn shared(limits: PixelLimits, tokens: usize, frames: usize, patch: Patch) -> PixelLimits {
    let PixelLimits { min_pixels, max_pixels } = limits;
    let factor = patch.side * patch.merge;
    let total = (tokens as f64 * (factor * factor) as f64 * 0.9) as usize;
    let share = total.saturating_mul(patch.frames) / frames.max(1);
    let max_pixels = max_pixels.min(share).max((min_pixels as f64 * 1.05) as usize);
    PixelLimits { min_pixels, max_pixels }
}

impl ClipRule {
    /// The limits on a clip of `frames` frames.
    fn limits(&self, limits: PixelLimits, frames: usize, factor: usize) -> PixelLimits {
        let PixelLimits { min_pixels, max_pixels } = limits;
        let of_all = |of_frame: usize| of_frame.saturating_mul(frames);
        let of_checkpoint = match self.pixels {
            VideoPixels::Clip => max_pixels,
            VideoPixels::Frame => {
                let most = (self.frame_tokens * factor * factor).min(max_pixels / frames);
                of_all(most.max((min_pixels as f64 * 1.05) as usize))
            }
        };
        let max_pixels = self.most.map_or(of_checkpoint, |most| of_all(most).min(of_checkpoint));
        PixelLimits {
            min_pixels: self.least.map_or(min_pixels, of_all).min(max_pixels),
            max_pixels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: Patch = Patch { side: 16, frames: 2, merge: 2 };

    /// The tokens of each patch of a clip of frames of 640 × 640 pixels.
    fn tokens(frames: usize, least: Option<usize>, most: Option<usize>) -> u32 {
        let pixels = VideoPixels::Clip;
        let mut limits = PixelLimits { min_pixels: 4_096, max_pixels: 25_165_824 };
        let mut rule =
            ResizeRule::Clip(ClipRule { pixels, frame_tokens: 768, least: None, most: None });
        rule.limit(&mut limits, least, most);
        let (width, height) = rule.resized((640, 640), frames, limits, PATCH).unwrap();
        width / 32 * (height / 32)
    }

    #[test]
    fn max_pixels_and_min_pixels_count_for_each_frame_of_a_clip() {
        for frames in [2, 6, 32] {
            assert_eq!(tokens(frames, None, None), 400);
            assert_eq!(tokens(frames, None, Some(128 * 32 * 32)), 121);
            assert_eq!(tokens(frames, Some(600 * 32 * 32), None), 625);
        }
        // The clip's own limit stays, and the least is at most as large.
        assert_eq!(tokens(768, None, Some(1 << 28)), 25);
        assert_eq!(tokens(768, Some(1 << 28), None), 25);
    }

    #[test]
    fn a_single_frame_has_the_size_of_two() {
        assert_eq!(tokens(1, Some(600 * 32 * 32), None), tokens(2, Some(600 * 32 * 32), None));
    }
}
