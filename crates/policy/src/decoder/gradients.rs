//! The decoder's gradients by module; frozen tensors have none.

use std::convert::Infallible;

use candle_core::Tensor;
use embodied_r_kernels::embedding;
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::layer::Layer;
use crate::lora;
use crate::tensors::{EMBEDDING, FINAL_NORM, HEAD};

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
pub(crate) type LayerGradients = Layer<LinearGradients, Option<Tensor>>;

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
        let linear = |name: &str, bias: Option<Option<Tensor>>| {
            let part = |part: &str| get(&format!("{name}.{part}"));
            let [a, b] = [lora::A, lora::B].map(part);
            Ok(LinearGradients { weight: part("weight"), bias: bias.flatten(), a, b })
        };
        let layer = |index: usize| {
            let layer: Result<_, Infallible> =
                Layer::new(config, index, |name| Ok(get(name)), linear);
            layer.unwrap_or_else(|never| match never {})
        };
        let embedding = get(EMBEDDING);
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => get(HEAD),
        };
        let layers = (0..config.num_hidden_layers).map(layer).collect();
        Self { embedding, layers, norm: get(FINAL_NORM), head }
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
