//! Vision encoders: from images to what a decoder takes of them. The families are in `family`.
//!
//! [`image_file`] decodes files, [`Processor`] cuts images into patches as `transformers` does, the vision tower turns
//! patches into embeddings, and [`VisionEncoder::prompt`] inserts these into a prompt. [`TrainableTower`] is the tower for
//! training. The decoder is [`embodied_r_policy`]'s.

mod config;
mod encoder;
mod error;
mod family;
mod frames;
mod gguf_names;
mod grid;
mod image_embeddings;
pub mod image_file;
mod image_layout;
mod layout;
mod linear;
mod lora_modules;
mod message;
mod model;
mod model_files;
mod options;
mod processor;
mod resize;
mod sizes;
mod source;
mod tower;
mod tower_weights;
mod trainable;
mod vision_processor;

pub use config::{ImageTokens, VisionConfig};
pub use encoder::VisionEncoder;
pub use error::{Error, Result};
pub use frames::{FrameTimes, Frames, SampledVideo};
pub use grid::{Grid, PixelLimits, smart_resize};
pub use image_embeddings::ImageEmbeddings;
pub use image_layout::{ImageLayout, image_digest};
pub use lora_modules::VisionModule;
pub use message::{MultimodalMessage, MultimodalPart};
pub use model::{VisionLanguageModel, check_adapter, check_headers, is_vision_language_model};
pub use options::VisionOptions;
pub use processor::{FrameSampling, Patch, PixelOptions, Pixels, Processor, VideoPixels};
pub use sizes::TowerSizes;
pub use trainable::{
    FrozenParts, SavedTower, TowerBytes, TowerGradients, TowerOptions, TrainableTower,
};
pub use vision_processor::VisionProcessor;
