//! The decoder's gradients by module; frozen tensors have none.

use candle_core::Tensor;
use embodied_r_kernels::embedding;
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::lora::Module;

/// The gradients of a linear module.
pub(crate) struct LinearGradients {
    pub(crate) weight: Option<Tensor>,
    pub(crate) bias: Option<Tensor>,
    /// Of the adapter's `A`.
    pub(crate) a: Option<Tensor>,
    /// Of the adapter's `B`.
    pub(crate) b: Option<Tensor>,
}

/// The gradients of one layer.
pub(crate) struct LayerGradients {
    pub(crate) input_norm: Option<Tensor>,
    pub(crate) q: LinearGradients,
    pub(crate) k: LinearGradients,
    pub(crate) v: LinearGradients,
    pub(crate) o: LinearGradients,
    pub(crate) post_norm: Option<Tensor>,
    pub(crate) gate: LinearGradients,
    pub(crate) up: LinearGradients,
    pub(crate) down: LinearGradients,
}

/// All gradients of a decoder. With tied embeddings, `head` is `embedding`.
pub(crate) struct DecoderGradients {
    pub(crate) embedding: Option<Tensor>,
    pub(crate) layers: Vec<LayerGradients>,
    pub(crate) norm: Option<Tensor>,
    pub(crate) head: Option<Tensor>,
}

impl DecoderGradients {
    /// Looks each gradient up by the canonical name of its tensor.
    pub(crate) fn new(gradients: &IndexMap<String, Tensor>, config: &ModelConfig) -> Self {
        let get = |name: &str| gradients.get(name).cloned();
        let layer = |i: usize| {
            let norm = |name: &str| get(&format!("model.layers.{i}.{name}.weight"));
            let linear = |module: Module| {
                let name = module.name(i);
                let part = |part: &str| get(&format!("{name}.{part}"));
                LinearGradients {
                    weight: part("weight"),
                    bias: part("bias"),
                    a: part("lora_A.weight"),
                    b: part("lora_B.weight"),
                }
            };
            LayerGradients {
                input_norm: norm("input_layernorm"),
                q: linear(Module::Q),
                k: linear(Module::K),
                v: linear(Module::V),
                o: linear(Module::O),
                post_norm: norm("post_attention_layernorm"),
                gate: linear(Module::Gate),
                up: linear(Module::Up),
                down: linear(Module::Down),
            }
        };
        let embedding = get("model.embed_tokens.weight");
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => get("lm_head.weight"),
        };
        let layers = (0..config.num_hidden_layers).map(layer).collect();
        Self { embedding, layers, norm: get("model.norm.weight"), head }
    }

    /// Adds `dx` to the embedding's gradient at the rows of `ids`, if the embedding is trained.
    ///
    /// # Shapes
    /// `dx` (tokens, hidden).
    pub(crate) fn add_tokens(&self, ids: &[usize], dx: &Tensor) -> Result<()> {
        match &self.embedding {
            Some(embedding) => Ok(embedding::scatter_add(embedding, ids, dx)?),
            None => Ok(()),
        }
    }
}
