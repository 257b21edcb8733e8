//! From video to text: decoding, key frames, captions.
//!
//! [`video`] decodes frames with FFmpeg, [`keyframes`] selects the key frames, [`captioner`] captions
//! them, and [`perceive`] runs the pipeline over files of questions, with resumption.

pub mod captioner;
pub mod error;
pub mod keyframes;
pub mod perceive;
pub mod video;

pub use error::{Error, Result};
