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
pub(crate) use gradients::DecoderGradients;
pub(crate) use layer::{Activations, PromptKv, Sharing};
pub(crate) use linear::{Linear, LowRank};

/// The tensors of one layer.
pub(crate) type Layer = crate::layer::Layer<Linear>;

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
        let linear = |name: &str, bias| {
            Ok(Linear { weight: get(&format!("{name}.weight"))?, bias, low_rank: None })
        };
        let layers = 0..config.num_hidden_layers;
        let layers = layers.map(|index| Layer::new(config, index, get, linear));
        let layers = layers.collect::<Result<_>>()?;
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
