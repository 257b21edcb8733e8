//! Qwen2.5-VL's eyes: from pictures to the tokens that a decoder reads.
//!
//! [`picture`] reads files, [`Processor`] makes patches of them as `transformers` does, the vision tower tokens of
//! the patches, and [`Eyes::prompt`] puts those into a conversation. The decoder is [`embodied_r_policy`]'s.

mod config;
mod error;
mod gallery;
mod grid;
mod message;
mod model;
pub mod picture;
mod processor;
mod resize;
mod seen;
mod source;
mod tower;
mod windows;

pub use config::{PictureTokens, VisionConfig};
pub use error::{Error, Result};
pub use gallery::Gallery;
pub use grid::{Grid, PixelLimits, smart_resize};
pub use message::{Message, Part};
pub use model::{Eyes, VisionLanguageModel, VisionOptions, can_see};
pub use processor::{Patch, Pixels, Processor};
pub use seen::Seen;
