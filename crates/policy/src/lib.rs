//! The Qwen2 decoder: weights, tokenizer, chat template, generation and the differentiable path.

mod atomic;
pub mod config;
pub mod error;

pub use config::{ModelConfig, ModelType, WeightDtype};
pub use error::{Error, Result};
