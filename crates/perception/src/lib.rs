//! From video to text: key frames, captions.
//!
//! [`video`] decodes frames, [`keyframes`] selects the key frames, [`captioner`] captions
//! them, and [`perceive`] runs the pipeline over files of questions, with resumption. [`sampled_video`] has
//! the frames of a video for a vision-language model that sees them itself. [`jpeg`] encodes images for servers.

pub mod captioner;
pub mod error;
pub mod jpeg;
pub mod keyframes;
pub mod perceive;
pub mod sampled_video;

pub use embodied_r_video as video;
pub use error::{Error, Result};
