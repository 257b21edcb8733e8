//! LoRA training settings.

use std::path::Path;

use indexmap::IndexMap;

use super::{EncoderModule, Module};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::fingerprint::weights_fingerprint;
use crate::tensors::tensor_shapes;

/// LoRA training settings, named as in `peft`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// The rank.
    pub r: usize,
    /// Scale of the update, multiplied by `r`.
    pub lora_alpha: usize,
    /// Dropout probability of an adapter's input in training, below 1.
    pub lora_dropout: f64,
    /// The modules of the decoder to adapt, in every layer.
    pub target_modules: Vec<Module>,
    /// The layers of an encoder to adapt, if the run trains one.
    pub encoder_modules: Vec<EncoderModule>,
    /// Rank-stabilized LoRA: scales by `1 / √r` instead of `1 / r` (Kalajdzievski, 2023).
    pub use_rslora: bool,
    /// The base model: a folder or a name on the hub. Training makes a folder's path absolute, so that the adapter finds it
    /// from every working directory.
    pub base_model_name_or_path: Option<String>,
    /// The base model's [`crate::weights_fingerprint`]; set when the base model is loaded for training.
    pub base_fingerprint: Option<String>,
}

impl LoraConfig {
    /// The scale of the update.
    #[must_use]
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha as f64 / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// These settings for the base model in the folder `base`.
    ///
    /// # Errors
    /// The base model's files cannot be read.
    pub(crate) fn on_base(&self, base: &Path) -> Result<Self> {
        let named = self.base_model_name_or_path.as_deref().map(|named| {
            let absolute = Path::new(named).canonicalize().ok();
            let absolute = absolute.as_deref().and_then(Path::to_str);
            absolute.unwrap_or(named).to_owned()
        });
        Ok(Self {
            base_model_name_or_path: named,
            base_fingerprint: Some(weights_fingerprint(base)?),
            ..self.clone()
        })
    }

    /// Checks the rank loosely, against the largest dimension of the layers: above the smaller dimension of a matrix,
    /// more ranks add nothing, and far above the largest, the adapter exceeds every memory.
    ///
    /// # Errors
    /// [`Error::LoraRank`].
    pub(crate) fn check_rank(&self, config: &ModelConfig) -> Result<()> {
        let most = config.largest_dimension();
        match (1..=most).contains(&self.r) {
            true => Ok(()),
            false => Err(Error::LoraRank { found: self.r, most }),
        }
    }

    /// Shapes of the adapter's tensors for a model of `config`: `A` (r, inputs), then `B` (outputs, r), for each
    /// module.
    pub(crate) fn shapes(&self, config: &ModelConfig) -> IndexMap<String, Vec<usize>> {
        let base = tensor_shapes(config);
        let mut shapes = IndexMap::new();
        for layer in 0..config.num_hidden_layers {
            for module in &self.target_modules {
                let name = module.name(layer);
                let shape = base.get(&format!("{name}.weight")).map(Vec::as_slice);
                if let Some([outputs, inputs]) = shape {
                    shapes.insert(format!("{name}.{A}"), vec![self.r, *inputs]);
                    shapes.insert(format!("{name}.{B}"), vec![*outputs, self.r]);
                }
            }
        }
        shapes
    }
}

/// Name suffix of an adapter's `A`.
pub(crate) const A: &str = "lora_A.weight";
/// Name suffix of an adapter's `B`.
pub(crate) const B: &str = "lora_B.weight";
