//! From video to text: captions of key frames.
//!
//! [`captioner`] captions the key frames of videos, and [`perceive`] runs the pipeline over files of questions, with
//! resumption. [`sampled_video`] has
//! the frames of a video for a vision-language model that sees them itself. [`jpeg`] encodes images for servers.

pub mod captioner;
pub mod error;
pub mod jpeg;
pub mod perceive;
pub mod sampled_video;

pub use error::{Error, Result};
