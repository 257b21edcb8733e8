//! How an adapter is trained.

use indexmap::IndexMap;

use super::Module;
use crate::config::ModelConfig;
use crate::weights::tensor_shapes;

/// How an adapter is trained, under the names that `peft` gives its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// The rank.
    pub r: usize,
    /// What the product of the two tensors is multiplied with, times `r`.
    pub lora_alpha: usize,
    /// Probability with which an adapter's input is dropped in training, below 1.
    pub lora_dropout: f64,
    /// The modules that are adapted, in every layer.
    pub target_modules: Vec<Module>,
    /// Divides by the root of `r` in place of `r` (Kalajdzievski, 2023).
    pub use_rslora: bool,
    /// The model that is adapted, as its user names it: a folder or a name on the hub.
    pub base_model_name_or_path: Option<String>,
}

impl LoraConfig {
    /// What the product of the two tensors is multiplied with.
    pub(crate) fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha as f64 / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// The adapter's tensors beside a model of the shape `config`: `A` (r, inputs) before `B` (outputs, r)
    /// of each module.
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

/// Ends of the names of an adapter's tensors.
pub(crate) const A: &str = "lora_A.weight";
/// See [`A`].
pub(crate) const B: &str = "lora_B.weight";
