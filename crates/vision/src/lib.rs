//! Qwen2.5-VL's eyes: from pictures to the tokens that the decoder reads.

mod config;
mod error;
mod grid;
mod picture;
mod processor;
mod resize;
mod tower;
mod windows;

pub use error::{Error, Result};
