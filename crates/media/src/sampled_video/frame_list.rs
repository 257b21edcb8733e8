//! A video that is given as a list of frames.

use std::path::PathBuf;

use embodied_r_vision::{Processor, image_file};
use image::RgbImage;
use rayon::prelude::*;

use super::plan::check_pixels;
use super::{FrameUse, MAX_FRAMES, SampledVideo};
use crate::error::{Error, Result};

impl SampledVideo {
    /// The video of `frames` at `fps` frames per second. They are sampled already: all are used, as in `qwen-vl-utils`.
    ///
    /// # Errors
    /// [`Error::FrameCount`] without frames or above [`MAX_FRAMES`]; [`Error::FrameSizes`];
    /// [`Error::FrameOption`] for an `fps` that is not positive.
    pub fn from_frames(frames: Vec<RgbImage>, fps: f64) -> Result<Self> {
        let seconds = seconds(frames.len(), fps)?;
        if let Some(first) = frames.first().map(RgbImage::dimensions) {
            for (index, frame) in frames.iter().enumerate() {
                check_size(&index.to_string(), frame.dimensions(), first)?;
            }
        }
        Ok(Self { frames, seconds })
    }

    /// [`Self::from_frames`] for image files, which are read on all cores.
    ///
    /// # Errors
    /// As [`Self::from_frames`], [`Error::Vision`] if a file cannot be read, and [`Error::TooManyPixels`].
    pub fn from_files(
        paths: &[PathBuf],
        fps: f64,
        frame_use: FrameUse,
        processor: &Processor,
    ) -> Result<Self> {
        let seconds = seconds(paths.len(), fps)?;
        let mut frames = Vec::with_capacity(paths.len());
        let mut rest = paths.iter();
        let Some(path) = rest.next() else { return Ok(Self { frames, seconds }) };
        let first = image_file::read(path)?;
        let size = first.dimensions();
        let kept = frame_use.kept_size(processor, paths.len(), size)?;
        check_pixels(paths.len(), kept)?;
        frames.push(Processor::resized(first, kept));
        let read = |path: &PathBuf| {
            let frame = image_file::read(path)?;
            check_size(&format!("`{}`", path.display()), frame.dimensions(), size)?;
            Ok(Processor::resized(frame, kept))
        };
        let others: Vec<RgbImage> = rest.as_slice().par_iter().map(read).collect::<Result<_>>()?;
        frames.extend(others);
        Ok(Self { frames, seconds })
    }
}

/// The seconds between frames.
fn seconds(frames: usize, fps: f64) -> Result<f64> {
    if !(1..=MAX_FRAMES).contains(&frames) {
        return Err(Error::FrameCount { frames, most: MAX_FRAMES });
    }
    match fps.is_finite() && fps > 0.0 {
        true => Ok(1.0 / fps),
        false => {
            let expected = "a positive number".to_owned();
            Err(Error::FrameOption { option: "fps", given: fps.to_string(), expected })
        }
    }
}

fn check_size(name: &str, size: (u32, u32), first: (u32, u32)) -> Result<()> {
    match size == first {
        true => Ok(()),
        false => Err(Error::FrameSizes { name: name.to_owned(), size, first }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampled_video::plan::tests::processor;
    use image::Rgb;

    fn frame(size: (u32, u32), level: u8) -> RgbImage {
        RgbImage::from_fn(size.0, size.1, |x, y| Rgb([level, (x * 3) as u8, (y * 5) as u8]))
    }

    #[test]
    fn all_frames_of_a_list_are_used_at_its_rate() {
        let folder = tempfile::tempdir().unwrap();
        let frames: Vec<RgbImage> = (0..5).map(|level| frame((200, 120), level * 40)).collect();
        let path = |index: usize| folder.path().join(format!("{index}.png"));
        let save = |(index, frame): (usize, &RgbImage)| {
            frame.save(path(index)).unwrap();
            path(index)
        };
        let paths: Vec<PathBuf> = frames.iter().enumerate().map(save).collect();
        let processor = processor();
        let read = SampledVideo::from_files(&paths, 4.0, FrameUse::Video, &processor).unwrap();
        assert_eq!((read.frames.len(), read.seconds), (5, 0.25));
        assert!(read.frames[0].dimensions() < (200, 120), "{:?}", read.frames[0].dimensions());
        let patches = |frames: &[RgbImage]| {
            processor.video(frames).unwrap().patches.to_vec2::<f32>().unwrap()
        };
        assert_eq!(patches(&read.frames), patches(&frames));
        let given = SampledVideo::from_frames(frames.clone(), 4.0).unwrap();
        assert_eq!(given, SampledVideo { frames, seconds: 0.25 });
    }

    #[test]
    fn frames_that_differ_in_size_or_cannot_be_read_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        frame((40, 30), 0).save(at("a.png")).unwrap();
        frame((30, 40), 0).save(at("b.png")).unwrap();
        std::fs::write(at("c.png"), "no image").unwrap();
        let message = |names: &[&str]| {
            let paths: Vec<PathBuf> = names.iter().map(|name| at(name)).collect();
            SampledVideo::from_files(&paths, 2.0, FrameUse::Images, &processor())
                .unwrap_err()
                .to_string()
        };
        let sizes = message(&["a.png", "a.png", "b.png"]);
        assert!(sizes.contains("b.png` has 30 × 40 pixels"), "{sizes}");
        assert!(sizes.contains("the video's first frame 40 × 30"), "{sizes}");
        assert!(message(&["a.png", "c.png"]).contains("c.png"));
        assert!(message(&["c.png"]).contains("c.png"));
        assert!(message(&["a.png", "none.png"]).contains("none.png"));
        assert_eq!(message(&[]), "a video of 0 frames: it must have from 1 to 768");
        let frames = vec![frame((4, 4), 0), frame((4, 5), 0)];
        let message = SampledVideo::from_frames(frames, 2.0).unwrap_err().to_string();
        assert!(message.contains("the frame 1 has 4 × 5 pixels"), "{message}");
        let many = SampledVideo::from_frames(vec![frame((1, 1), 0); 769], 2.0).unwrap_err();
        assert!(matches!(many, Error::FrameCount { frames: 769, .. }), "{many}");
    }

    #[test]
    fn the_rate_of_a_list_must_be_positive() {
        for fps in [0.0, -2.0, f64::NAN, f64::INFINITY] {
            let error = SampledVideo::from_frames(vec![frame((4, 4), 0)], fps).unwrap_err();
            assert!(error.to_string().starts_with("`fps` must be a positive number"), "{error}");
        }
    }
}
