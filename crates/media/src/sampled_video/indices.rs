//! The indices of sampled frames, as `qwen-vl-utils` 0.0.14 computes them.

/// Frames per temporal patch, of which their number is a multiple.
const FRAME_FACTOR: usize = 2;

/// The least frames of a rate, if the video has as many.
const MIN_FRAMES: f64 = 4.0;

/// The indices of `count` frames of a video of `frames`, evenly spaced from the first to the last:
/// `torch.linspace(0, frames - 1, count).round()`.
pub(super) fn uniform(frames: usize, count: usize) -> Vec<usize> {
    let (count, last) = (count.min(frames), frames.saturating_sub(1) as f32);
    if count < 2 {
        return (0..count).collect();
    }
    // In f32 and from both ends, as torch does.
    let step = last / (count - 1) as f32;
    let at = |index: usize| match index < count / 2 {
        true => step * index as f32,
        false => last - step * (count - index - 1) as f32,
    };
    (0..count).map(|index| at(index).round_ties_even() as usize).collect()
}

/// The number of frames of a video of `frames` at `video_fps` that are sampled at `fps`: `smart_nframes`.
pub(super) fn count_at(frames: usize, video_fps: f64, fps: f64, max_frames: usize) -> usize {
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
            let count = count_at(frames, video_fps, fps, max_frames);
            let case = format!("{frames} frames at {video_fps}, sampled at {fps}");
            assert_eq!(uniform(frames, count), indices, "{case}");
        }
    }

    #[test]
    fn uniform_frames_match_the_reference() {
        let cases = expected().uniform;
        assert_eq!(cases.len(), 16);
        for (frames, count, indices) in cases {
            assert_eq!(uniform(frames, count), indices, "{count} of {frames}");
        }
    }

    #[test]
    fn short_videos_have_all_their_frames() {
        assert_eq!(uniform(3, 16), [0, 1, 2]);
        assert_eq!((uniform(1, 16), uniform(9, 1)), (vec![0], vec![0]));
        assert_eq!((count_at(1, 30.0, 2.0, 64), count_at(0, 30.0, 2.0, 64)), (1, 0));
    }
}
