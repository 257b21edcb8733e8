//! Options of an engine with a vision encoder.

use std::path::Path;
use std::sync::Arc;

use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_policy::{Engine, EngineOptions, WeightFormat};
use embodied_r_vision::{Error as VisionError, VisionOptions};

use crate::error::Result;
use crate::model::Model;

/// Options of an engine with a vision encoder.
#[derive(Debug, Clone)]
pub struct VisionEngineOptions {
    /// Weight format and maximum image size.
    pub vision: VisionOptions,
    /// Size of the KV cache in bytes, on each rank.
    pub kv_cache_bytes: usize,
    /// Size of the image embedding cache in bytes.
    pub image_cache_bytes: usize,
    /// Engine options, such as the maximum batch size and tokens per step.
    pub engine: EngineOptions,
}

impl Default for VisionEngineOptions {
    fn default() -> Self {
        Self {
            vision: WeightFormat::F32.into(),
            kv_cache_bytes: 4 << 30,
            image_cache_bytes: 1 << 30,
            engine: EngineOptions::default(),
        }
    }
}

impl VisionEngineOptions {
    /// An engine for `model`, or for this rank's shard of it.
    pub(super) fn engine(&self, model: &Model) -> Result<Engine> {
        let tokens = self.kv_cache_bytes / model.decoder.kv_bytes_per_token().max(1);
        let options = EngineOptions { kv_cache_tokens: Some(tokens), ..self.engine.clone() };
        Ok(Engine::new(model.decoder.clone(), options)?)
    }

    /// An empty cache of the image embeddings of `model`, which was loaded from `dir`.
    pub(super) fn image_cache(&self, dir: &Path, model: &Model) -> Result<Arc<EmbeddingCache>> {
        let none = || VisionError::NoVision { dir: dir.to_owned() };
        let encoder = model.vision_encoder.clone().ok_or_else(none)?;
        Ok(Arc::new(EmbeddingCache::new(encoder, self.image_cache_bytes)))
    }
}
