//! The decoder for training: its tensors by module, with forward and backward of a layer.

mod gradients;
mod layer;
mod linear;

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::Precision;
use embodied_r_kernels::attention::{GroupSpan, Heads};
use embodied_r_kernels::rope::CosSinCache;
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::tensors::{EMBEDDING, FINAL_NORM, HEAD};
pub(crate) use gradients::DecoderGradients;
pub(crate) use layer::{Activations, PromptKv, PromptSharing};
pub(crate) use linear::{Linear, LowRank};

/// The tensors of one layer.
pub(crate) type Layer = crate::layer::Layer<Linear, Tensor>;

/// All tensors of a decoder. With tied embeddings, `head` is `embedding`.
#[derive(Clone)]
pub(crate) struct Decoder {
    pub(crate) embedding: Tensor,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Tensor,
    pub(crate) head: Tensor,
}

impl Decoder {
    /// Looks each tensor up by its canonical name, without copies.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub(crate) fn new(tensors: &IndexMap<String, Tensor>, config: &ModelConfig) -> Result<Self> {
        let get = |name: &str| {
            let missing = || Error::MissingTensor { name: name.to_owned() };
            tensors.get(name).cloned().ok_or_else(missing)
        };
        let embedding = get(EMBEDDING)?;
        let linear = |name: &str, bias| {
            Ok(Linear { weight: get(&format!("{name}.weight"))?, bias, low_rank: None })
        };
        let layers = 0..config.num_hidden_layers;
        let layers = layers.map(|index| Layer::new(config, index, get, linear));
        let layers = layers.collect::<Result<_>>()?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => get(HEAD)?,
        };
        Ok(Self { embedding, layers, norm: get(FINAL_NORM)?, head })
    }
}

/// The inputs that all layers of a pass share.
pub(crate) struct Pass<'a> {
    pub(crate) cos_sin: Arc<CosSinCache>,
    pub(crate) spans: Cow<'a, [GroupSpan]>,
    pub(crate) heads: Heads,
    pub(crate) eps: f64,
    pub(crate) precision: Precision,
    /// In training, a key for each row that determines its dropout masks.
    pub(crate) dropout: Option<Vec<u64>>,
    /// The rows whose last-layer output is needed; `None` if all are.
    pub(crate) output_rows: Option<Box<OutputRows<'a>>>,
}

/// The rows whose last-layer output is needed. For the others, the last layer only computes keys and values.
pub(crate) struct OutputRows<'a> {
    /// The rows, in order.
    pub(crate) rows: Vec<usize>,
    /// The pass restricted to these rows: other tokens have no queries.
    pub(crate) pass: Pass<'a>,
}

impl<'a> Pass<'a> {
    /// The output rows of the layer at `index` of `layers`; `None` if all are computed.
    pub(crate) fn output_rows(&self, index: usize, layers: usize) -> Option<&OutputRows<'a>> {
        self.output_rows.as_deref().filter(|_| index + 1 == layers)
    }
}
