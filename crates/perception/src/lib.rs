//! From a video to text: decoding, key frames, captions.
//!
//! [`video`] reads frames through FFmpeg, [`keyframes`] chooses the few that matter, [`captioner`]
//! turns each into words, and [`perceive`] runs that over a file of questions and resumes.

pub mod captioner;
pub mod error;
pub mod keyframes;
pub mod perceive;
pub mod video;

pub use error::{Error, Result};
