//! The selected frames of a video file, before they are decoded.

use std::path::Path;

use embodied_r_keyframes::{self as keyframes, KeyFrameOptions};
use embodied_r_video::{self as video, Limits, Timestamps, Video};
use embodied_r_vision::{FrameTimes, Processor};

use super::{FrameSelection, FrameUse, SampledVideo, indices};
use crate::error::{Error, Result};

/// The most pixels of a video's selected frames, as they are kept: 1.6 GB.
pub const MAX_VIDEO_PIXELS: u64 = 1 << 29;

/// The selected frames of a video file.
#[derive(Debug, Clone)]
pub struct FramePlan {
    video: Video,
    indices: Vec<usize>,
    times: FrameTimes,
}

impl FramePlan {
    /// Selects frames of the video at `path`, as `processor` samples them, of which as little is decoded as the selection
    /// needs: nothing, if the file has an index of its frames and no key frames are selected.
    ///
    /// # Errors
    /// Those of [`video::probe`], [`video::count_frames`] and [`keyframes::select`]; [`video::Error::Decode`] for a video
    /// without frames; [`Error::FrameOption`].
    pub fn of_file(
        path: &Path,
        selection: &FrameSelection,
        processor: &Processor,
        limits: &Limits,
    ) -> Result<Self> {
        let selection = selection.checked()?;
        let limits = &limits.started();
        let video = video::probe_within(path, limits)?;
        let (frames, key_frames) = match selection {
            FrameSelection::Key => {
                let selected = keyframes::select_within(path, &KeyFrameOptions::default(), limits)?;
                (selected.frames, selected.keyframes)
            }
            _ => (video::count_frames(&video, limits)?, Vec::new()),
        };
        if frames == 0 {
            let reason = "it has no frames".to_owned();
            return Err(video::Error::Decode { path: path.to_owned(), reason }.into());
        }
        let video_fps = Timestamps::of(&video, frames, limits)?.average_fps(frames);
        let indices = match selection {
            FrameSelection::Key => key_frames,
            FrameSelection::Uniform(count) => {
                indices::uniform(frames, count, processor.frame_sampling())
            }
            FrameSelection::Linspace(count) => indices::linspace(frames, count),
            FrameSelection::Fps { fps, max_frames } => {
                let sampling = processor.frame_sampling();
                let count = indices::count_at((frames, video_fps), fps, max_frames, sampling);
                indices::uniform(frames, count, sampling)
            }
        };
        // `sampled_fps` of `transformers`, `sample_fps` of `qwen-vl-utils`.
        let sampled_fps = indices.len() as f64 / frames as f64 * video_fps;
        let starts = indices.iter().map(|index| *index as f64 / video_fps).collect();
        Ok(Self { video, indices, times: FrameTimes { interval: 1.0 / sampled_fps, starts } })
    }

    /// The indices of the frames in the video, ascending; at least one.
    #[must_use]
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The width and height of the frames in pixels.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.video.width, self.video.height)
    }

    /// When the frames are shown.
    #[must_use]
    pub fn times(&self) -> &FrameTimes {
        &self.times
    }

    /// Width and height at which [`Self::decode`] keeps the frames.
    ///
    /// # Errors
    /// [`Error::Vision`] for an extreme aspect ratio, [`Error::TooManyPixels`] above [`MAX_VIDEO_PIXELS`].
    pub fn kept_size(&self, frame_use: FrameUse, processor: &Processor) -> Result<(u32, u32)> {
        let kept = frame_use.kept_size(processor, self.indices.len(), self.size())?;
        check_pixels(self.indices.len(), kept)?;
        Ok(kept)
    }

    /// Decodes the frames for `processor`. Besides those that are kept, one frame is in memory.
    ///
    /// # Errors
    /// As [`Self::kept_size`] and [`video::frames`].
    pub fn decode(
        &self,
        frame_use: FrameUse,
        processor: &Processor,
        limits: &Limits,
    ) -> Result<SampledVideo> {
        let kept = self.kept_size(frame_use, processor)?;
        let keep = |frame| Ok::<_, Error>(Processor::resized(frame, kept));
        let frames = video::map_frames(&self.video, &self.indices, None, &limits.started(), keep)?;
        Ok(SampledVideo { frames, times: self.times.clone() })
    }
}

/// Refuses frames that would take too much memory.
fn check_pixels(frames: usize, (width, height): (u32, u32)) -> Result<()> {
    let pixels = (frames as u64).saturating_mul(u64::from(width) * u64::from(height));
    match pixels > MAX_VIDEO_PIXELS {
        true => Err(Error::TooManyPixels { frames, width, height, most: MAX_VIDEO_PIXELS }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_video::clips;
    use image::RgbImage;

    /// A processor that shrinks images and frames to different sizes, with patches of two pixels.
    fn processor() -> Processor {
        let folder = tempfile::tempdir().unwrap();
        let settings = |max_pixels: usize| {
            serde_json::json!({"min_pixels": 16, "max_pixels": max_pixels, "patch_size": 2,
                "merge_size": 2, "temporal_patch_size": 2})
        };
        let text = serde_json::json!({"image_processor": settings(2048), "video_processor": settings(1024)});
        let path = folder.path().join("processor_config.json");
        std::fs::write(path, text.to_string()).unwrap();
        Processor::of_model(folder.path()).unwrap()
    }

    fn plan(path: &Path, selection: &str) -> Result<FramePlan> {
        FramePlan::of_file(path, &selection.parse().unwrap(), &processor(), &Limits::default())
    }

    #[test]
    fn the_selected_frames_are_decoded_as_the_processor_would_shrink_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 23);
        let plan = plan(&path, "uniform=4").unwrap();
        assert_eq!(plan.indices(), [0, 7, 15, 22]);
        // 2.3 s.
        assert!((plan.times().interval - 2.3 / 4.0).abs() < 1e-12, "{}", plan.times().interval);
        let (processor, limits) = (processor(), Limits::default());
        let whole = video::frames(&path, plan.indices(), None, &limits).unwrap();
        let decoded = plan.decode(FrameUse::Video, &processor, &limits).unwrap();
        assert_eq!(decoded.frames[0].dimensions(), (36, 24));
        let patches = |frames: &[RgbImage]| {
            processor.video(frames).unwrap().patches.to_vec2::<f32>().unwrap()
        };
        assert_eq!(patches(&decoded.frames), patches(&whole));
        for (frame, index) in decoded.frames.iter().zip(plan.indices()) {
            let gray = frame.get_pixel(10, 10).0[1];
            assert!(gray.abs_diff(clips::brightness(*index)) <= 3, "frame {index} is {gray}");
        }
        let images = plan.decode(FrameUse::Images, &processor, &limits).unwrap();
        assert_eq!(images.frames[0].dimensions(), (52, 36));
        for (kept, whole) in images.frames.iter().zip(&whole) {
            let patches = |image| processor.image(image).unwrap().patches.to_vec2::<f32>().unwrap();
            assert_eq!(patches(kept), patches(whole));
        }
    }

    #[test]
    fn a_rate_selects_an_even_number_of_frames_and_their_mean_distance() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 75);
        let plan_of = |selection: &str| {
            let plan = plan(&path, selection).unwrap();
            (plan.indices().to_vec(), plan.times().interval)
        };
        let (indices, seconds) = plan_of("fps=2");
        assert_eq!(indices, [0, 6, 11, 17, 23, 28, 34, 40, 46, 51, 57, 63, 68, 74]);
        assert!((seconds - 7.5 / 14.0).abs() < 1e-12, "{seconds}");
        let (indices, seconds) = plan_of("fps=2,max_frames=5");
        assert_eq!(indices.len(), 4);
        assert!((seconds - 7.5 / 4.0).abs() < 1e-12, "{seconds}");
    }

    #[test]
    fn key_frames_are_those_of_the_selection() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::panning(folder.path(), "pan.mp4", 100);
        let plan = plan(&path, "key").unwrap();
        assert_eq!(plan.indices(), [0, 30, 60, 90, 99]);
        assert!((plan.times().interval - 2.0).abs() < 1e-12, "{}", plan.times().interval);
    }

    #[test]
    fn a_video_of_a_variable_rate_has_its_average_rate() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&clips::slowing(folder.path(), "slow.mp4"), "uniform=5").unwrap();
        assert_eq!(plan.indices(), [0, 10, 20, 29, 39]);
        // The last of 40 frames is at 11.5 s.
        assert!(
            plan.times().interval > 11.5 / 5.0 && plan.times().interval < 12.5 / 5.0,
            "{}",
            plan.times().interval
        );
    }

    #[test]
    fn a_file_without_an_index_is_counted_by_decoding_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.avi");
        clips::ffmpeg("-f lavfi -i testsrc2=s=96x64:r=10 -frames:v 23 -c:v mpeg4", &path);
        let found = plan(&path, "uniform=4").unwrap();
        assert_eq!(found.indices(), [0, 7, 15, 22]);
        let decoded = found.decode(FrameUse::Video, &processor(), &Limits::default()).unwrap();
        assert_eq!(decoded.frames.len(), 4);
    }

    #[test]
    fn a_video_of_one_frame_has_that_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "one.mp4", 1);
        for selection in ["key", "uniform=16", "fps=2"] {
            let plan = plan(&path, selection).unwrap();
            assert_eq!(plan.indices(), [0], "{selection}");
            assert!((plan.times().interval - 0.1).abs() < 1e-9, "{}", plan.times().interval);
            let decoded = plan.decode(FrameUse::Video, &processor(), &Limits::default()).unwrap();
            assert_eq!(decoded.frames.len(), 1);
        }
    }

    #[test]
    fn frames_that_change_in_size_have_the_size_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::changing_size(folder.path(), "a.h264", 10);
        let plan = plan(&path, "uniform=4").unwrap();
        assert_eq!((plan.indices(), plan.size()), (&[0, 6, 13, 19][..], (96, 64)));
        let decoded = plan.decode(FrameUse::Video, &processor(), &Limits::default()).unwrap();
        let sizes: Vec<_> = decoded.frames.iter().map(RgbImage::dimensions).collect();
        assert_eq!(sizes, [(36, 24); 4]);
    }

    #[test]
    fn files_without_frames_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("empty.mp4"), "").unwrap();
        std::fs::write(at("text.mp4"), "no video at all").unwrap();
        clips::audio(folder.path(), "sound.m4a");
        for selection in ["key", "uniform=4", "fps=2"] {
            for name in ["empty.mp4", "text.mp4", "sound.m4a", "absent.mp4"] {
                let error = plan(&at(name), selection).unwrap_err().to_string();
                assert!(error.contains(name), "{error}");
            }
        }
    }

    #[test]
    fn a_truncated_video_is_rejected_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::truncated(folder.path(), "short.mp4");
        let error = plan(&path, "uniform=4")
            .and_then(|plan| plan.decode(FrameUse::Video, &processor(), &Limits::default()));
        let message = error.unwrap_err().to_string();
        assert!(message.contains("short.mp4"), "{message}");
    }

    #[test]
    fn frames_that_would_take_too_much_memory_are_refused() {
        assert!(check_pixels(512, (1024, 1024)).is_ok());
        let message = check_pixels(513, (1024, 1024)).unwrap_err().to_string();
        assert!(message.starts_with("513 frames of 1024 × 1024 pixels are above"), "{message}");
    }
}
