//! Qwen2.5-VL's vision encoder: from images to decoder tokens.
//!
//! [`image_file`] decodes files, [`Processor`] cuts images into patches as `transformers` does, the vision tower turns
//! patches into embeddings, and [`VisionEncoder::prompt`] inserts these into a prompt. [`TrainableTower`] is the tower for
//! training. The decoder is [`embodied_r_policy`]'s.

mod config;
mod embedding_cache;
mod error;
mod grid;
mod image_embeddings;
pub mod image_file;
mod linear;
mod message;
mod model;
mod prepared_image;
mod processor;
mod resize;
mod source;
mod tower;
mod tower_weights;
mod trainable;
mod windows;

pub use config::{ImageTokens, VisionConfig};
pub use embedding_cache::EmbeddingCache;
pub use error::{Error, Result};
pub use grid::{Grid, PixelLimits, smart_resize};
pub use image_embeddings::ImageEmbeddings;
pub use message::{MultimodalMessage, MultimodalPart};
pub use model::{
    VisionEncoder, VisionLanguageModel, VisionOptions, check_headers, is_vision_language_model,
};
pub use prepared_image::PreparedImage;
pub use processor::{Patch, Pixels, Processor};
pub use trainable::{
    FrozenParts, SavedTower, TowerBytes, TowerGradients, TowerOptions, TrainableTower,
};
