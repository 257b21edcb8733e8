//! A video that is given as a list of frames.

use embodied_r_vision::FrameTimes;
use image::RgbImage;

use super::{MAX_FRAMES, SampledVideo};
use crate::error::{Error, Result};

/// The video of `frames` at `fps` frames per second. They are sampled already: all are used, as in `qwen-vl-utils`.
///
/// # Errors
/// [`Error::FrameCount`] without frames or above [`MAX_FRAMES`]; [`Error::FrameSizes`];
/// [`Error::FrameOption`] for an `fps` that is not positive.
pub fn from_frames(frames: Vec<RgbImage>, fps: f64) -> Result<SampledVideo> {
    let times = times(frames.len(), fps)?;
    if let Some(first) = frames.first().map(RgbImage::dimensions) {
        for (index, frame) in frames.iter().enumerate() {
            check_size(&index.to_string(), frame.dimensions(), first)?;
        }
    }
    Ok(SampledVideo { frames, times })
}

fn times(frames: usize, fps: f64) -> Result<FrameTimes> {
    if !(1..=MAX_FRAMES).contains(&frames) {
        return Err(Error::FrameCount { frames, most: MAX_FRAMES });
    }
    match fps.is_finite() && fps > 0.0 {
        true => Ok(FrameTimes::at_rate(frames, fps)),
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
    use image::Rgb;

    fn frame(size: (u32, u32), level: u8) -> RgbImage {
        RgbImage::from_fn(size.0, size.1, |x, y| Rgb([level, (x * 3) as u8, (y * 5) as u8]))
    }

    #[test]
    fn all_frames_of_a_list_are_used_at_its_rate() {
        let frames: Vec<RgbImage> = (0..5).map(|level| frame((200, 120), level * 40)).collect();
        let given = from_frames(frames.clone(), 4.0).unwrap();
        let times = FrameTimes { interval: 0.25, starts: vec![0.0, 0.25, 0.5, 0.75, 1.0] };
        assert_eq!(given, SampledVideo { frames, times });
    }

    #[test]
    fn frames_that_differ_in_size_or_number_are_errors() {
        let message = |frames| from_frames(frames, 2.0).unwrap_err().to_string();
        let sizes = message(vec![frame((4, 4), 0), frame((4, 5), 0)]);
        assert!(sizes.contains("the frame 1 has 4 × 5 pixels"), "{sizes}");
        assert!(sizes.contains("the video's first frame 4 × 4"), "{sizes}");
        assert_eq!(message(vec![]), "a video of 0 frames: it must have from 1 to 768");
        assert!(message(vec![frame((1, 1), 0); 769]).starts_with("a video of 769 frames"));
    }

    #[test]
    fn the_rate_of_a_list_must_be_positive() {
        for fps in [0.0, -2.0, f64::NAN, f64::INFINITY] {
            let error = from_frames(vec![frame((4, 4), 0)], fps).unwrap_err();
            assert!(error.to_string().starts_with("`fps` must be a positive number"), "{error}");
        }
    }
}
