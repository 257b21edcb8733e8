//! The indices of sampled frames, as `qwen-vl-utils` 0.0.14 and `Qwen3VLVideoProcessor` compute them.

use embodied_r_vision::FrameSampling;

/// Frames per temporal patch, of which their number is a multiple.
const FRAME_FACTOR: usize = 2;

/// The least frames of a rate, if the video has as many.
const MIN_FRAMES: f64 = 4.0;

/// `numpy.linspace(0, frames - 1, min(count, frames), dtype=int)`.
pub(super) fn linspace(frames: usize, count: usize) -> Vec<usize> {
    let (count, last) = (count.min(frames), frames.saturating_sub(1));
    let step = last as f64 / count.saturating_sub(1).max(1) as f64;
    let at = |index: usize| match index + 1 == count && count > 1 {
        true => last,
        false => (index as f64 * step).floor() as usize,
    };
    (0..count).map(at).collect()
}

/// The indices of `count` frames of a video of `frames`, evenly spaced from the first to the last: `round` of
/// `torch.linspace(0, frames - 1, count)` in f32, or of `np.linspace` in f64.
pub(super) fn uniform(frames: usize, count: usize, sampling: FrameSampling) -> Vec<usize> {
    let (count, last) = (count.min(frames), frames.saturating_sub(1));
    if count < 2 {
        return (0..count).collect();
    }
    let at = |index: usize| match sampling {
        FrameSampling::Even => {
            // From both ends.
            let (last, step) = (last as f32, last as f32 / (count - 1) as f32);
            let at = match index < count / 2 {
                true => step * index as f32,
                false => last - step * (count - index - 1) as f32,
            };
            at.round_ties_even() as usize
        }
        FrameSampling::Any => {
            let step = last as f64 / (count - 1) as f64;
            ((index as f64 * step).round_ties_even() as usize).min(last)
        }
    };
    (0..count).map(at).collect()
}

/// The number of frames of a video of so many `frames` at `video_fps` that are sampled at `fps`: `smart_nframes`, or
/// `sample_frames` of `Qwen3VLVideoProcessor`.
pub(super) fn count_at(
    (frames, video_fps): (usize, f64),
    fps: f64,
    max_frames: usize,
    sampling: FrameSampling,
) -> usize {
    if sampling == FrameSampling::Any {
        let count = (frames as f64 / video_fps * fps).max(MIN_FRAMES) as usize;
        return count.min(max_frames).min(frames);
    }
    let even = |count: f64| (count / FRAME_FACTOR as f64).floor() * FRAME_FACTOR as f64;
    let most = even(max_frames as f64).min(frames as f64);
    let count = (frames as f64 / video_fps * fps).max(MIN_FRAMES).min(most);
    // `qwen-vl-utils` refuses a video of one frame.
    (even(count) as usize).max(1).min(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// Results of `qwen-vl-utils` (`scripts/parity/make_multimodal_fixtures.py`).
    #[derive(Deserialize)]
    struct Expected {
        fps: Vec<(usize, f64, f64, usize, Vec<usize>)>,
        uniform: Vec<(usize, usize, Vec<usize>)>,
    }

    fn expected() -> Expected {
        serde_json::from_str(include_str!("../../tests/fixtures/video_frames.json")).unwrap()
    }

    #[test]
    fn frames_at_a_rate_match_the_reference() {
        let cases = expected().fps;
        assert_eq!(cases.len(), 22);
        for (frames, video_fps, fps, max_frames, indices) in cases {
            let count = count_at((frames, video_fps), fps, max_frames, FrameSampling::Even);
            let case = format!("{frames} frames at {video_fps}, sampled at {fps}");
            assert_eq!(uniform(frames, count, FrameSampling::Even), indices, "{case}");
        }
    }

    /// Values of numpy 2.
    #[test]
    fn linspace_rounds_down() {
        assert_eq!(linspace(10, 4), [0, 3, 6, 9]);
        assert_eq!(linspace(100, 7), [0, 16, 33, 49, 66, 82, 99]);
        assert_eq!(linspace(3, 32), [0, 1, 2]);
        assert_eq!((linspace(9, 1), linspace(1, 4), linspace(0, 4)), (vec![0], vec![0], vec![]));
    }

    #[test]
    fn uniform_frames_match_the_reference() {
        let cases = expected().uniform;
        assert_eq!(cases.len(), 16);
        for (frames, count, indices) in cases {
            assert_eq!(uniform(frames, count, FrameSampling::Even), indices, "{count} of {frames}");
        }
    }

    /// Results of `Qwen3VLVideoProcessor` (`scripts/parity/make_video_fixtures.py`).
    #[test]
    fn any_number_of_frames_matches_the_reference() {
        let text = include_str!("../../tests/fixtures/timestamped_frames.json");
        let Expected { fps, uniform: evenly } = serde_json::from_str(text).unwrap();
        assert_eq!((fps.len(), evenly.len()), (16, 16));
        for (frames, video_fps, fps, max_frames, indices) in fps {
            let count = count_at((frames, video_fps), fps, max_frames, FrameSampling::Any);
            let case = format!("{frames} frames at {video_fps}, sampled at {fps}");
            assert_eq!(uniform(frames, count, FrameSampling::Any), indices, "{case}");
        }
        for (frames, count, indices) in evenly {
            let found = uniform(frames, count, FrameSampling::Any);
            assert_eq!(found, indices, "{count} of {frames}");
        }
    }

    #[test]
    fn short_videos_have_all_their_frames() {
        for sampling in [FrameSampling::Even, FrameSampling::Any] {
            assert_eq!(uniform(3, 16, sampling), [0, 1, 2]);
            assert_eq!((uniform(1, 16, sampling), uniform(9, 1, sampling)), (vec![0], vec![0]));
            let count = |frames| count_at((frames, 30.0), 2.0, 64, sampling);
            assert_eq!((count(1), count(0)), (1, 0));
        }
    }
}
