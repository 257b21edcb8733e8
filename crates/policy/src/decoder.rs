//! The decoder's tensors, by their place in the model; gradients have the same form.

mod layer;

use candle_core::Tensor;
use embodied_r_kernels::Precision;
use embodied_r_kernels::attention::{GroupSpan, Heads};
use embodied_r_kernels::rope::Angles;
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
pub(crate) use layer::{Activations, PromptKv, Sharing};

/// A product's weight and bias.
#[derive(Clone)]
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

/// The tensors of one layer, and how far back it looks.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) input_norm: Tensor,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Tensor,
    pub(crate) post_norm: Tensor,
    pub(crate) gate: Tensor,
    pub(crate) up: Tensor,
    pub(crate) down: Tensor,
    /// Most recent tokens that attention sees; `None` means all.
    pub(crate) window: Option<usize>,
}

/// All tensors of a decoder. With tied embeddings `head` is `embedding`, in the gradients too.
#[derive(Clone)]
pub(crate) struct Decoder {
    pub(crate) embedding: Tensor,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Tensor,
    pub(crate) head: Tensor,
}

impl Decoder {
    /// Finds each tensor by its canonical name; none is copied.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if one is not there.
    pub(crate) fn new(tensors: &IndexMap<String, Tensor>, config: &ModelConfig) -> Result<Self> {
        let get = |name: &str| {
            let missing = || Error::MissingTensor { name: name.to_owned() };
            tensors.get(name).cloned().ok_or_else(missing)
        };
        let embedding = get("model.embed_tokens.weight")?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let get = |name: &str| get(&format!("model.layers.{i}.{name}"));
                let linear = |name: &str| -> Result<Linear> {
                    let weight = get(&format!("self_attn.{name}.weight"))?;
                    let bias = match config.attention_bias {
                        true => Some(get(&format!("self_attn.{name}.bias"))?),
                        false => None,
                    };
                    Ok(Linear { weight, bias })
                };
                Ok(Layer {
                    input_norm: get("input_layernorm.weight")?,
                    q: linear("q_proj")?,
                    k: linear("k_proj")?,
                    v: linear("v_proj")?,
                    o: get("self_attn.o_proj.weight")?,
                    post_norm: get("post_attention_layernorm.weight")?,
                    gate: get("mlp.gate_proj.weight")?,
                    up: get("mlp.up_proj.weight")?,
                    down: get("mlp.down_proj.weight")?,
                    window: config.window(i),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => get("lm_head.weight")?,
        };
        Ok(Self { embedding, layers, norm: get("model.norm.weight")?, head })
    }
}

/// What the layers of one pass share.
pub(crate) struct Pass<'a> {
    pub(crate) angles: Angles,
    pub(crate) spans: &'a [GroupSpan],
    pub(crate) heads: Heads,
    pub(crate) eps: f64,
    pub(crate) precision: Precision,
}
