//! From video to text: captions of key frames.
//!
//! [`captioner`] captions the key frames of videos, and [`perceive`] runs the pipeline over files of questions, with
//! resumption. [`jpeg`] encodes images for servers.

pub mod captioner;
pub mod error;
pub mod jpeg;
pub mod perceive;

pub use error::{Error, Result};
