//! The decoder's tensors, by their place in the model.

mod gradients;
mod layer;
mod linear;

use std::borrow::Cow;

use candle_core::Tensor;
use embodied_r_kernels::Precision;
use embodied_r_kernels::attention::{GroupSpan, Heads};
use embodied_r_kernels::rope::Angles;
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::lora::Module;
pub(crate) use gradients::DecoderGradients;
pub(crate) use layer::{Activations, PromptKv, Sharing};
pub(crate) use linear::{Linear, LowRank};

/// The tensors of one layer, and how far back it looks.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) input_norm: Tensor,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    pub(crate) post_norm: Tensor,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    /// Most recent tokens that attention sees; `None` means all.
    pub(crate) window: Option<usize>,
}

impl Layer {
    /// The linear module of that name.
    pub(crate) fn module_mut(&mut self, module: Module) -> &mut Linear {
        match module {
            Module::Q => &mut self.q,
            Module::K => &mut self.k,
            Module::V => &mut self.v,
            Module::O => &mut self.o,
            Module::Gate => &mut self.gate,
            Module::Up => &mut self.up,
            Module::Down => &mut self.down,
        }
    }
}

/// All tensors of a decoder. With tied embeddings `head` is `embedding`.
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
                let norm = |name: &str| get(&format!("model.layers.{i}.{name}.weight"));
                let linear = |module: Module| -> Result<Linear> {
                    let name = module.name(i);
                    let bias = match config.attention_bias && module.has_bias() {
                        true => Some(get(&format!("{name}.bias"))?),
                        false => None,
                    };
                    Ok(Linear { weight: get(&format!("{name}.weight"))?, bias, low_rank: None })
                };
                Ok(Layer {
                    input_norm: norm("input_layernorm")?,
                    q: linear(Module::Q)?,
                    k: linear(Module::K)?,
                    v: linear(Module::V)?,
                    o: linear(Module::O)?,
                    post_norm: norm("post_attention_layernorm")?,
                    gate: linear(Module::Gate)?,
                    up: linear(Module::Up)?,
                    down: linear(Module::Down)?,
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
    pub(crate) spans: Cow<'a, [GroupSpan]>,
    pub(crate) heads: Heads,
    pub(crate) eps: f64,
    pub(crate) precision: Precision,
    /// In training a key for each row, from which the masks of its dropout follow.
    pub(crate) dropout: Option<Vec<u64>>,
    /// What the last layer computes to its end, if that is not all.
    pub(crate) ends: Option<Box<Ends<'a>>>,
}

/// Rows whose output of the last layer is looked at. Of others it computes keys and values alone.
pub(crate) struct Ends<'a> {
    /// The rows, in order.
    pub(crate) rows: Vec<usize>,
    /// The pass as they see it: the tokens of other rows are silent.
    pub(crate) pass: Pass<'a>,
}

impl<'a> Pass<'a> {
    /// What the layer at `index` of `layers` computes to its end, if that is not all.
    pub(crate) fn ends(&self, index: usize, layers: usize) -> Option<&Ends<'a>> {
        self.ends.as_deref().filter(|_| index + 1 == layers)
    }
}
