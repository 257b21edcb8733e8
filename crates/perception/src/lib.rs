//! From video to text: decoding, key frames, captions.
//!
//! [`video`] decodes frames with FFmpeg, [`keyframes`] selects the key frames, [`captioner`] captions
//! them, and [`perceive`] runs the pipeline over files of questions, with resumption. [`sampled_video`] has
//! the frames of a video for a vision-language model that sees them itself.

pub mod captioner;
pub mod error;
pub mod keyframes;
pub mod perceive;
pub mod sampled_video;
pub mod video;

pub use error::{Error, Result};
