//! The policy: a decoder of Qwen2, Qwen3 or Llama with its weights, tokenizer, chat template, inference engine, and forward and
//! backward passes for training.

mod activation_cache;
mod chat_template;
pub mod config;
mod decoder;
mod dropout;
mod engine;
pub mod error;
mod faults;
mod fingerprint;
mod flops;
mod forward;
mod generate;
pub mod gguf;
pub mod hub;
mod image_rows;
mod layer;
pub mod lora;
mod packed;
mod parameters;
mod policy;
mod prompt;
mod sampling;
mod shared_prompt;
mod tensor_parallel;
mod tensors;
mod text_stream;
pub mod tokenizer;
pub mod trainable;
pub mod weights;

pub use activation_cache::{ActivationCache, ActivationCacheOptions};
pub use chat_template::TemplateFault;
pub use config::{DecoderSizes, ModelConfig, ModelType, Rope, SlidingWindow, WeightDtype};
pub use embodied_r_kernels::Precision;
pub use embodied_r_kernels::WeightPlacement;
pub use embodied_r_kernels::paged_attention::PAGE_SIZE;
pub use embodied_r_kernels::quantized::BlockFormat;
pub use embodied_r_kernels::rope::MropeSections;
pub use embodied_r_kernels::weight::WeightFormat;
pub use engine::{
    Engine, EngineOptions, EngineOutput, EngineStats, FinishReason, GenerationRequest,
    InferenceModel, LAUNCHES_PER_LAYER, RequestId,
};
pub use error::{Error, Result};
pub use fingerprint::{FingerprintExtent, fingerprint, weights_fingerprint};
pub use flops::{ActivationBytes, ForwardFlops};
pub use forward::{ForwardPass, GradientReadyHook};
pub use generate::{CompletionOutput, GenerateEvent, GenerateOptions};
pub use gguf::{GgufFault, GgufFile, GgufModel, GgufTensor};
pub use image_rows::ImageGradients;
pub use lora::{Adapter, AdapterFault, LoraConfig};
pub use packed::Group;
pub use parameters::{Gradients, Parameters};
pub use policy::{LayerHook, Policy, TokenScores};
pub use prompt::{ImageEmbedder, ImageSpan, MropePosition, Prompt, PromptImage};
pub use sampling::{SampledToken, SamplingBounds, SamplingParams, SamplingSettings, TokenLogprobs};
pub use shared_prompt::{ChunkForward, SharedPrompt};
pub use tensor_parallel::{ShardBytes, TensorParallel};
pub use text_stream::TextStream;
pub use trainable::Trainable;
