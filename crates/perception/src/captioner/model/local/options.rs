//! Options of a model in this process.

use embodied_r_policy::{Engine, EngineOptions, WeightFormat};
use embodied_r_vision::{VisionLanguageModel, VisionOptions};

use crate::error::Result;

/// Options of a model in this process.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Weight format and maximum image size.
    pub vision: VisionOptions,
    /// Size of the KV cache in bytes, on each rank.
    pub kv_cache_bytes: usize,
    /// Size of the image embedding cache in bytes.
    pub image_cache_bytes: usize,
    /// Engine options, such as the maximum batch size and tokens per step.
    pub engine: EngineOptions,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            vision: WeightFormat::F32.into(),
            kv_cache_bytes: 4 << 30,
            image_cache_bytes: 1 << 30,
            engine: EngineOptions::default(),
        }
    }
}

impl LocalOptions {
    /// An engine for `model`, or for this rank's shard of it.
    pub(super) fn engine(&self, model: &VisionLanguageModel) -> Result<Engine> {
        let decoder = model.decoder().clone();
        let tokens = self.kv_cache_bytes / decoder.kv_bytes_per_token().max(1);
        let options = EngineOptions { kv_cache_tokens: Some(tokens), ..self.engine.clone() };
        Ok(Engine::new(decoder, options)?)
    }
}
