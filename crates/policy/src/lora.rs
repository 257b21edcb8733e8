//! LoRA adapters in the folders that `peft` writes: read, held against a model, merged into its weights, trained and
//! written.
//!
//! A linear module with the weight `W` becomes one with `W + s·B·A`, where `A` is (rank, inputs), `B` (outputs, rank)
//! and `s` is `alpha / rank`, or `alpha / √rank` for rank-stabilised adapters (Kalajdzievski, 2023).

mod base;
mod config;
mod fault;
mod modules;
mod read;
mod settings;
#[cfg(test)]
mod tests;
mod train;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_kernels::{Precision, linear, memory};

use crate::config::ModelConfig;
use crate::error::{During, Error, Result};
use crate::parameters::Parameters;
pub use base::base_of;
pub(crate) use base::{holds_adapter, holds_model};
use config::AdapterConfig;
pub use fault::AdapterFault;
pub use modules::Module;
pub use settings::LoraConfig;
pub(crate) use settings::{A, B};
pub(crate) use train::Lora;
pub(crate) use write::Within;

/// The adapter's settings in its folder.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// The adapter's tensors in its folder.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// An adapter that fits a model.
#[derive(Debug)]
pub struct Adapter {
    dir: PathBuf,
    base_model: Option<String>,
    /// By the canonical name of the weight that each changes.
    pairs: BTreeMap<String, Pair>,
    /// Whole tensors that take the place of the model's, by canonical name.
    replaced: BTreeMap<String, Tensor>,
}

/// What is added to one weight.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// (rank, inputs).
    pub(crate) a: Tensor,
    /// (outputs, rank).
    pub(crate) b: Tensor,
    pub(crate) scale: f64,
}

impl Adapter {
    /// Reads the adapter in the folder `dir` and holds it against a model of the shape `config`.
    ///
    /// # Errors
    /// [`Error::Adapter`] with every setting that is not supported, and every tensor that is missing, misshapen or
    /// not expected; [`Error::CorruptWeights`] for a broken file, and [`Error::Io`].
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self> {
        let settings = AdapterConfig::from_dir(dir)?;
        let (pairs, replaced) = read::tensors(dir, &settings, config)?;
        let base_model = settings.base_model;
        Ok(Self { dir: dir.to_owned(), base_model, pairs, replaced })
    }

    /// The model that the adapter was trained on, as `peft` recorded it: a folder or a name on the hub.
    pub fn base_model(&self) -> Option<&str> {
        self.base_model.as_deref()
    }

    /// Number of weights that the adapter changes.
    pub fn len(&self) -> usize {
        self.pairs.len() + self.replaced.len()
    }

    /// Whether it changes none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it adds to the weight of that name, if it is a pair.
    pub(crate) fn pair(&self, name: &str) -> Option<&Pair> {
        self.pairs.get(name)
    }

    /// Whether it changes the weight of that name.
    pub(crate) fn changes(&self, name: &str) -> bool {
        self.pairs.contains_key(name) || self.replaced.contains_key(name)
    }

    /// Whether a tensor of the adapter takes the place of the weight of that name.
    pub(crate) fn replaces(&self, name: &str) -> bool {
        self.replaced.contains_key(name)
    }

    /// The names of the weights that it changes.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().chain(self.replaced.keys()).map(String::as_str)
    }

    /// Adds the adapter to `parameters`, in place and in f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if the parameters are not those of the model that the adapter was opened for.
    pub fn apply(&self, parameters: &Parameters) -> Result<()> {
        let get = |name: &str| {
            let missing = || Error::MissingTensor { name: name.to_owned() };
            parameters.get(name).ok_or_else(missing)
        };
        for name in self.names() {
            self.apply_to(name, get(name)?)?;
        }
        Ok(())
    }

    /// Changes `weight`, which has the canonical name `name`, in place and in f32.
    pub(crate) fn apply_to(&self, name: &str, weight: &Tensor) -> Result<()> {
        if let Some(tensor) = self.replaced.get(name) {
            memory::overwrite(weight, tensor)?;
        }
        if let Some(Pair { a, b, scale }) = self.pairs.get(name) {
            let doing = || format!("merge `{name}` of `{}`", self.dir.display());
            let scaled = (b * *scale).during(doing())?;
            let columns = a.t().and_then(|a| a.contiguous()).during(doing())?;
            // W += (s·B)·(Aᵀ)ᵀ, in W's memory.
            linear::forward_add(&scaled, &columns, weight.clone(), Precision::F32)?;
        }
        Ok(())
    }
}
