//! LoRA adapters in the folders that `peft` writes: read, held against a model, merged into its weights.
//!
//! A linear module with the weight `W` becomes one with `W + s·B·A`, where `A` is (rank, inputs), `B` (outputs, rank)
//! and `s` is `alpha / rank`, or `alpha / √rank` for rank-stabilised adapters (Kalajdzievski, 2023).

mod config;
mod fault;
mod modules;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_kernels::{Precision, linear, memory};

use crate::config::ModelConfig;
use crate::error::{During, Error, Result};
use crate::parameters::Parameters;
use config::AdapterConfig;
pub use fault::AdapterFault;

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
struct Pair {
    /// (rank, inputs).
    a: Tensor,
    /// (outputs, rank).
    b: Tensor,
    scale: f64,
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

    /// Adds the adapter to `parameters`, in place and in f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if the parameters are not those of the model that the adapter was opened for.
    pub fn apply(&self, parameters: &Parameters) -> Result<()> {
        let get = |name: &str| {
            let missing = || Error::MissingTensor { name: name.to_owned() };
            parameters.get(name).ok_or_else(missing)
        };
        for (name, tensor) in &self.replaced {
            let weight = get(name)?;
            let numbers = memory::floats(tensor, "merge")?;
            memory::update(weight, "merge", |weight| weight.copy_from_slice(&numbers))?;
        }
        for (name, Pair { a, b, scale }) in &self.pairs {
            let weight = get(name)?.clone();
            let doing = || format!("merge `{name}` of `{}`", self.dir.display());
            let scaled = (b * *scale).during(doing())?;
            let columns = a.t().and_then(|a| a.contiguous()).during(doing())?;
            // W += (s·B)·(Aᵀ)ᵀ, in W's memory.
            linear::forward_add(&scaled, &columns, weight, Precision::F32)?;
        }
        Ok(())
    }
}
