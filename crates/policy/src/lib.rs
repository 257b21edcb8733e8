//! The Qwen2 decoder: weights, tokenizer, chat template, generation and the differentiable path.

mod atomic;
mod chat_template;
pub mod config;
mod decoder;
mod engine;
pub mod error;
mod fingerprint;
mod forward;
mod generate;
pub mod gguf;
pub mod hub;
pub mod lora;
mod packed;
mod parameters;
mod policy;
mod random;
mod sampling;
mod text_stream;
pub mod tokenizer;
pub mod weights;

pub use config::{ModelConfig, ModelType, Rope, SlidingWindow, WeightDtype};
pub use embodied_r_kernels::Precision;
pub use embodied_r_kernels::paged_attention::PAGE;
pub use engine::{Engine, EngineOptions, EngineStats, InferenceModel, Output, RequestId};
pub use error::{Error, Result};
pub use fingerprint::fingerprint;
pub use forward::Forward;
pub use generate::{Finish, GenerateEvent, Request, Sample};
pub use gguf::{GgufFault, GgufModel, GgufTensor};
pub use lora::{Adapter, AdapterFault};
pub use packed::Group;
pub use parameters::{Gradients, Parameters};
pub use policy::{Policy, TokenScores};
pub use sampling::{Report, Sampling, Token};
pub use text_stream::TextStream;
