//! Which frames of a video are selected.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which frames of a video a model sees. Its text form is `key`, `uniform=16`, `linspace=32` or `fps=2,max_frames=64`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FrameSelection {
    /// The key frames of [`keyframes`](embodied_r_keyframes), with their default options.
    Key,
    /// This many frames from the first to the last, evenly spaced; all frames of a video that has fewer.
    Uniform(usize),
    /// The same, rounded as numpy's `linspace(0, n - 1, N, dtype=int)`: the frames of lmms-eval's and VLMEvalKit's benchmarks.
    Linspace(usize),
    /// The processors' sampling: a rate, from 4 to `max_frames` frames, evenly spaced from the first to the last. For
    /// Qwen2.5-VL an even number (`smart_nframes` of `qwen-vl-utils`). A video of one frame has that one.
    Fps {
        /// Frames per second.
        fps: f64,
        /// At most this many frames. For Qwen2.5-VL, an odd number counts as the even one below it.
        max_frames: usize,
    },
}

/// The most frames of a video: that of `qwen-vl-utils` (`FPS_MAX_FRAMES`).
pub const MAX_FRAMES: usize = 768;

/// The frame rate of `qwen-vl-utils`.
const DEFAULT_FPS: f64 = 2.0;

impl Default for FrameSelection {
    /// That of `qwen-vl-utils`: 2 fps, at most [`MAX_FRAMES`].
    fn default() -> Self {
        Self::Fps { fps: DEFAULT_FPS, max_frames: MAX_FRAMES }
    }
}

impl FrameSelection {
    /// The selection of the options `--frames`, `--fps` and `--max-frames`; `None` if none is given.
    ///
    /// # Errors
    /// [`Error::FrameOption`] if a value is invalid, or if options exclude each other.
    pub fn from_options(
        frames: Option<&str>,
        fps: Option<f64>,
        max_frames: Option<usize>,
    ) -> Result<Option<Self>> {
        let excluded = |option, given: &dyn fmt::Display| {
            let expected = "omitted with `--frames`, which excludes it".to_owned();
            Err(Error::FrameOption { option, given: given.to_string(), expected })
        };
        match (frames, fps, max_frames) {
            (None, None, None) => Ok(None),
            (Some(frames), None, None) => frames.parse().map(Some),
            (Some(_), Some(fps), _) => excluded("--fps", &fps),
            (Some(_), None, Some(max_frames)) => excluded("--max-frames", &max_frames),
            (None, fps, max_frames) => {
                let (fps, most) = (fps.unwrap_or(DEFAULT_FPS), max_frames.unwrap_or(MAX_FRAMES));
                Self::Fps { fps, max_frames: most }.checked().map(Some)
            }
        }
    }

    /// The selection, if its numbers are in their ranges.
    ///
    /// # Errors
    /// [`Error::FrameOption`].
    pub fn checked(self) -> Result<Self> {
        let invalid = |option, given: &dyn fmt::Display, expected: String| {
            Err(Error::FrameOption { option, given: given.to_string(), expected })
        };
        match self {
            Self::Uniform(frames) if !(1..=MAX_FRAMES).contains(&frames) => {
                invalid("uniform", &frames, format!("from 1 to {MAX_FRAMES} frames"))
            }
            Self::Linspace(frames) if !(1..=MAX_FRAMES).contains(&frames) => {
                invalid("linspace", &frames, format!("from 1 to {MAX_FRAMES} frames"))
            }
            Self::Fps { fps, .. } if !(fps.is_finite() && fps > 0.0) => {
                invalid("fps", &fps, "a positive number".to_owned())
            }
            Self::Fps { max_frames, .. } if !(2..=MAX_FRAMES).contains(&max_frames) => {
                invalid("max_frames", &max_frames, format!("from 2 to {MAX_FRAMES}"))
            }
            _ => Ok(self),
        }
    }
}

impl fmt::Display for FrameSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("key"),
            Self::Uniform(frames) => write!(f, "uniform={frames}"),
            Self::Linspace(frames) => write!(f, "linspace={frames}"),
            Self::Fps { fps, max_frames } => write!(f, "fps={fps},max_frames={max_frames}"),
        }
    }
}

impl FromStr for FrameSelection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once('=') {
            None if text == "key" => Some(Self::Key),
            Some(("uniform", frames)) => frames.parse().ok().map(Self::Uniform),
            Some(("linspace", frames)) => frames.parse().ok().map(Self::Linspace),
            Some(("fps", rest)) => {
                let (fps, max_frames) = match rest.split_once(",max_frames=") {
                    Some((fps, max_frames)) => (fps, max_frames.parse().ok()),
                    None => (rest, Some(MAX_FRAMES)),
                };
                let fps = fps.parse().ok();
                fps.zip(max_frames).map(|(fps, max_frames)| Self::Fps { fps, max_frames })
            }
            _ => None,
        };
        let invalid = || Error::FrameOption {
            option: "frames",
            given: format!("`{text}`"),
            expected: "`key`, `uniform=N`, `linspace=N` or `fps=F`, such as `uniform=16`"
                .to_owned(),
        };
        parsed.ok_or_else(invalid)?.checked()
    }
}

impl TryFrom<String> for FrameSelection {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<FrameSelection> for String {
    fn from(selection: FrameSelection) -> Self {
        selection.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_selection_is_read_from_what_it_writes(
            kind in 0..4, count in 2..=MAX_FRAMES, fps in 1e-3..1e3_f64,
        ) {
            let selection = match kind {
                0 => FrameSelection::Key,
                1 => FrameSelection::Uniform(count),
                2 => FrameSelection::Linspace(count),
                _ => FrameSelection::Fps { fps, max_frames: count },
            };
            prop_assert_eq!(selection.to_string().parse::<FrameSelection>().unwrap(), selection);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(key|uniform|linspace|fps|max_frames|=|,|[0-9]|.){0,8}") {
            let _ = text.parse::<FrameSelection>();
        }
    }

    #[test]
    fn a_selection_is_read_from_its_text() {
        let fps = |fps, max_frames| FrameSelection::Fps { fps, max_frames };
        for (text, selection) in [
            ("key", FrameSelection::Key),
            ("uniform=16", FrameSelection::Uniform(16)),
            ("fps=0.5,max_frames=64", fps(0.5, 64)),
        ] {
            assert_eq!(text.parse::<FrameSelection>().unwrap(), selection);
            assert_eq!(selection.to_string(), text);
        }
        assert_eq!("fps=2".parse::<FrameSelection>().unwrap(), FrameSelection::default());
        let json = serde_json::to_string(&FrameSelection::Uniform(4)).unwrap();
        assert_eq!(json, "\"uniform=4\"");
        assert!(serde_json::from_str::<FrameSelection>("\"uniform=0\"").is_err());
    }

    #[test]
    fn an_invalid_selection_is_named_with_what_is_expected() {
        for (text, message) in [
            ("uniform=0", "`uniform` must be from 1 to 768 frames, not 0"),
            ("linspace=0", "`linspace` must be from 1 to 768 frames, not 0"),
            ("uniform=769", "`uniform` must be from 1 to 768 frames, not 769"),
            ("fps=0", "`fps` must be a positive number, not 0"),
            ("fps=-1", "`fps` must be a positive number, not -1"),
            ("fps=NaN", "`fps` must be a positive number, not NaN"),
            ("fps=inf", "`fps` must be a positive number, not inf"),
            ("fps=2,max_frames=1", "`max_frames` must be from 2 to 768, not 1"),
        ] {
            assert_eq!(text.parse::<FrameSelection>().unwrap_err().to_string(), message);
        }
        for text in
            ["", "all", "uniform", "uniform=", "uniform=-1", "uniform=2.5", "key=1", "fps=x"]
        {
            let message = text.parse::<FrameSelection>().unwrap_err().to_string();
            let expected = format!("not `{text}`");
            assert!(message.starts_with("`frames` must be `key`, `uniform=N`"), "{message}");
            assert!(message.ends_with(&expected), "{message}");
        }
    }

    #[test]
    fn options_give_a_selection_or_exclude_each_other() {
        let of = FrameSelection::from_options;
        assert_eq!(of(None, None, None).unwrap(), None);
        assert_eq!(of(Some("uniform=3"), None, None).unwrap(), Some(FrameSelection::Uniform(3)));
        let fps = |fps, max_frames| Some(FrameSelection::Fps { fps, max_frames });
        assert_eq!(of(None, Some(1.0), None).unwrap(), fps(1.0, 768));
        assert_eq!(of(None, None, Some(64)).unwrap(), fps(2.0, 64));
        assert_eq!(of(None, Some(1.5), Some(8)).unwrap(), fps(1.5, 8));
        let message = of(Some("key"), Some(2.0), None).unwrap_err().to_string();
        assert!(message.starts_with("`--fps` must be omitted with `--frames`"), "{message}");
        assert!(of(Some("key"), None, Some(2)).unwrap_err().to_string().contains("--max-frames"));
        assert!(of(None, Some(f64::NAN), None).is_err() && of(None, None, Some(0)).is_err());
    }
}
