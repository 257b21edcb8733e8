//! The image processor: resizes, normalizes and cuts images into patches (`Qwen2VLImageProcessor`).

mod of_model;
mod patch;
mod settings;
mod video_rules;

use candle_core::Tensor;
use embodied_r_kernels::memory;
use image::RgbImage;
use rayon::prelude::*;

use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::resize::bicubic;
pub use patch::Patch;
pub(crate) use settings::{
    CHANNELS, IMAGE_FILE, ProcessorFiles, Settings, VIDEO_FILE, of_files, of_folder,
};
pub(crate) use video_rules::VideoRules;
pub use video_rules::{FrameSampling, PixelOptions, VideoPixels};

/// A checkpoint's processor for images and videos.
#[derive(Debug, Clone, PartialEq)]
pub struct Processor {
    images: Settings,
    videos: Settings,
    sampling: FrameSampling,
}

/// The normalized pixels of an image or a video, by patch (`pixel_values`).
#[derive(Debug, Clone)]
pub struct Pixels {
    /// The patch grid.
    pub grid: Grid,
    /// (patches, 3 · frames · side · side). Patches of one token are adjacent.
    pub patches: Tensor,
}

impl Processor {
    /// With other limits on the pixels of images and videos.
    #[must_use]
    pub fn with_pixels(mut self, options: PixelOptions) -> Self {
        let PixelOptions { min_pixels, max_pixels, video_pixels } = options;
        for Settings { rule, limits, .. } in [&mut self.images, &mut self.videos] {
            rule.limit(limits, min_pixels, max_pixels);
        }
        if let Some(pixels) = video_pixels {
            self.videos.rule.set_pixels(pixels);
        }
        self
    }

    /// What the limits on the pixels of videos apply to.
    #[must_use]
    pub fn video_pixels(&self) -> VideoPixels {
        self.videos.rule.pixels()
    }

    /// How the frames of videos are sampled.
    #[must_use]
    pub fn frame_sampling(&self) -> FrameSampling {
        self.sampling
    }

    /// The patch grid of an image of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`](crate::Error::AspectRatio).
    pub fn image_grid(&self, size: (u32, u32)) -> Result<Grid> {
        self.images.grid(size, 1)
    }

    /// The patches of an image.
    ///
    /// # Errors
    /// [`Error::AspectRatio`](crate::Error::AspectRatio).
    pub fn image(&self, image: &RgbImage) -> Result<Pixels> {
        self.images.pixels(std::slice::from_ref(image))
    }

    /// The patch grid of a video of `frames` frames of `size`, in pixels.
    ///
    /// # Errors
    /// [`Error::AspectRatio`](crate::Error::AspectRatio).
    pub fn video_grid(&self, frames: usize, size: (u32, u32)) -> Result<Grid> {
        self.videos.grid(size, frames)
    }

    /// The patches of a video of one or more frames. The last frame is repeated to fill the last temporal patch.
    ///
    /// # Errors
    /// [`Error::AspectRatio`](crate::Error::AspectRatio); [`Error::Video`](crate::Error::Video) without frames, or if they
    /// differ in size.
    pub fn video(&self, frames: &[RgbImage]) -> Result<Pixels> {
        frame_size(frames)?;
        self.videos.pixels(frames)
    }

    /// The size at which the frames of a video of `frames` frames of `size` may be kept: that of [`Self::video`], if it
    /// is smaller and if resizing them early gives the same patches, else their own.
    ///
    /// # Errors
    /// [`Error::AspectRatio`](crate::Error::AspectRatio).
    pub fn kept_frame_size(&self, frames: usize, size: (u32, u32)) -> Result<(u32, u32)> {
        self.videos.kept_size(size, frames)
    }

    /// [`Self::kept_frame_size`] for images.
    ///
    /// # Errors
    /// [`Error::AspectRatio`](crate::Error::AspectRatio).
    pub fn kept_image_size(&self, size: (u32, u32)) -> Result<(u32, u32)> {
        self.images.kept_size(size, 1)
    }

    /// `image`, resized as [`Self::image`] and [`Self::video`] do, unless it has that size.
    #[must_use]
    pub fn resized(image: RgbImage, (width, height): (u32, u32)) -> RgbImage {
        match image.dimensions() == (width, height) {
            true => image,
            false => bicubic(&image, width, height),
        }
    }

    /// Checks that its patches are those of a tower of `config`.
    ///
    /// # Errors
    /// [`Error::Patches`].
    pub(crate) fn check(&self, config: &VisionConfig) -> Result<()> {
        let patch = self.patch();
        let fits = patch.side == config.patch_size
            && patch.frames == config.temporal_patch_size
            && patch.merge == config.spatial_merge_size;
        if !fits {
            let message = format!("the processor's {patch:?} does not match the vision tower's");
            return Err(Error::Patches(message));
        }
        Ok(())
    }

    /// The size of a patch, and how many are merged.
    #[must_use]
    pub fn patch(&self) -> Patch {
        self.images.patch
    }
}

impl Settings {
    /// The size that an image, or each of a video's `frames` frames, is resized to.
    fn resized(&self, size: (u32, u32), frames: usize) -> Result<(u32, u32)> {
        self.rule.resized(size, frames, self.limits, self.patch)
    }

    fn kept_size(&self, size: (u32, u32), frames: usize) -> Result<(u32, u32)> {
        let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
        let resized = self.resized(size, frames)?;
        // A ribbon may not reach the limits, and would be resized twice.
        let is_final = self.resized(resized, frames)? == resized;
        Ok(if area(resized) < area(size) && is_final { resized } else { size })
    }

    fn grid(&self, size: (u32, u32), frames: usize) -> Result<Grid> {
        let (width, height) = self.resized(size, frames)?;
        let patches = |side: u32| side as usize / self.patch.side;
        Ok(Grid {
            time: frames.div_ceil(self.patch.frames),
            height: patches(height),
            width: patches(width),
        })
    }

    /// The patches of frames; the last frame is repeated to fill the last patch.
    fn pixels(&self, frames: &[RgbImage]) -> Result<Pixels> {
        let size = frames.first().map_or((0, 0), RgbImage::dimensions);
        let (width, height) = self.resized(size, frames.len())?;
        let grid = self.grid(size, frames.len())?;
        let frames: Vec<RgbImage> =
            frames.iter().map(|frame| bicubic(frame, width, height)).collect();
        let levels = self.levels();
        let Patch { side, frames: depth, merge } = self.patch;
        let patch_elements = CHANNELS * depth * side * side;
        // The patches of a row of tokens are contiguous.
        let row = merge * grid.width * patch_elements;
        let mut patches = vec![0.0; grid.patches() * patch_elements];
        let rows_of_frame = (grid.height / merge).max(1);
        patches.par_chunks_mut(row.max(1)).enumerate().for_each(|(index, patches)| {
            let (time, top) = (index / rows_of_frame, index % rows_of_frame * merge);
            for (index, patch) in patches.chunks_mut(patch_elements).enumerate() {
                let (token, inner) = (index / (merge * merge), index % (merge * merge));
                let row = (top + inner / merge) * side;
                let column = (token * merge + inner % merge) * side;
                for (part, to) in patch.chunks_mut(side * side).enumerate() {
                    let (channel, frame) = (part / depth, time * depth + part % depth);
                    let Some(frame) = frames.get(frame).or(frames.last()) else { continue };
                    fill(to, frame, (column, row, channel), side, &levels[channel]);
                }
            }
        });
        Ok(Pixels { grid, patches: memory::tensor(patches, (grid.patches(), patch_elements))? })
    }

    /// The normalized value of each byte, by channel.
    fn levels(&self) -> [[f32; 256]; CHANNELS] {
        std::array::from_fn(|channel| {
            let (mean, deviation) = (self.mean[channel] as f32, self.deviation[channel] as f32);
            std::array::from_fn(|byte| {
                let level = (byte as f64 * self.rescale) as f32;
                (level - mean) / deviation
            })
        })
    }
}

/// Fills a patch with one channel of a frame.
fn fill(
    to: &mut [f32],
    frame: &RgbImage,
    (column, row, channel): (usize, usize, usize),
    side: usize,
    levels: &[f32; 256],
) {
    let width = frame.width() as usize;
    for (y, to) in to.chunks_mut(side).enumerate() {
        let start = (row + y) * width + column;
        let pixels = frame.as_raw()[start * CHANNELS..].chunks(CHANNELS);
        for (to, pixel) in to.iter_mut().zip(pixels) {
            *to = levels[usize::from(pixel[channel])];
        }
    }
}

/// The size of a video's frames, in pixels.
///
/// # Errors
/// [`Error::Video`] without frames, or if they differ in size.
pub(crate) fn frame_size(frames: &[RgbImage]) -> Result<(u32, u32)> {
    let Some(first) = frames.first().map(RgbImage::dimensions) else {
        return Err(Error::Video("a video needs one or more frames".to_owned()));
    };
    if let Some(other) = frames.iter().map(RgbImage::dimensions).find(|size| *size != first) {
        let ((w, h), (width, height)) = (first, other);
        let message =
            format!("a video's frames differ in size: {w} × {h} and {width} × {height} pixels");
        return Err(Error::Video(message));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn processor() -> Processor {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"min_pixels": 16, "max_pixels": 4096, "patch_size": 2, "merge_size": 2,
            "temporal_patch_size": 2, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}"#;
        std::fs::write(folder.path().join("preprocessor_config.json"), text).unwrap();
        Processor::of_model(folder.path()).unwrap()
    }

    /// An image whose pixels encode their coordinates.
    fn image(width: u32, height: u32, time: u8) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, time]))
    }

    #[test]
    fn patches_of_a_token_are_adjacent_and_channel_major() {
        let pixels = processor().image(&image(8, 4, 9)).unwrap();
        assert_eq!(pixels.grid, Grid { time: 1, height: 2, width: 4 });
        let patches = pixels.patches.to_vec2::<f32>().unwrap();
        let byte = |number: f32| (number * 255.0).round() as u32;
        // The upper left pixel of each patch, in red and green.
        let corner = |patch: &Vec<f32>| (byte(patch[0]), byte(patch[8]));
        let corners: Vec<_> = patches.iter().map(corner).collect();
        let expected = [(0, 0), (2, 0), (0, 2), (2, 2), (4, 0), (6, 0), (4, 2), (6, 2)];
        assert_eq!(corners, expected);
        // A patch's pixels: red of two identical frames, then green, then blue.
        let values: Vec<u32> = patches[3].iter().copied().map(byte).collect();
        let red = [2, 3, 2, 3];
        let green = [2, 2, 3, 3];
        assert_eq!(values, [red, red, green, green, [9; 4], [9; 4]].concat());
    }

    #[test]
    fn a_video_has_a_patch_per_two_frames_and_repeats_an_odd_last_one() {
        let frames = [image(4, 4, 1), image(4, 4, 2), image(4, 4, 3)];
        let pixels = processor().video(&frames).unwrap();
        assert_eq!(pixels.grid, Grid { time: 2, height: 2, width: 2 });
        let patches = pixels.patches.to_vec2::<f32>().unwrap();
        let times = |patch: &Vec<f32>| [patch[16], patch[20]].map(|n| (n * 255.0).round() as u8);
        assert_eq!(times(&patches[0]), [1, 2]);
        assert_eq!(times(&patches[4]), [3, 3]);
    }

    #[test]
    fn min_pixels_replaces_the_limit_and_max_pixels_lowers_it() {
        let tokens = |processor: &Processor, side| {
            let image = processor.image_grid((side, side)).unwrap().tokens(2);
            let video = processor.video_grid(1, (side, side)).unwrap().tokens(2);
            assert_eq!(image, video);
            image
        };
        let own = processor();
        assert_eq!((tokens(&own, 4), tokens(&own, 100)), (1, 256));
        let with = |min_pixels, max_pixels| {
            processor().with_pixels(PixelOptions { min_pixels, max_pixels, video_pixels: None })
        };
        let more = with(Some(400), None);
        assert_eq!((tokens(&more, 4), tokens(&more, 100)), (25, 256));
        let less = with(None, Some(64));
        assert_eq!((tokens(&less, 4), tokens(&less, 100)), (1, 4));
        // A limit cannot be raised, nor the least pixels above it.
        let both = with(Some(1 << 20), Some(1 << 20));
        assert_eq!((tokens(&both, 4), tokens(&both, 100)), (256, 256));
    }

    #[test]
    fn max_pixels_applies_to_images_and_videos() {
        let processor = processor().with_pixels(PixelOptions::at_most(Some(64)));
        assert_eq!(processor.image_grid((100, 100)).unwrap().patches(), 16);
        let video = processor.video(&[image(100, 100, 0)]).unwrap();
        assert_eq!(video.grid.patches(), 16);
    }
}
