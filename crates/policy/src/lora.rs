//! LoRA adapters in `peft`'s format: loading, merging, training and saving.
//!
//! A linear module's weight `W` becomes `W + s·B·A`, where `A` is (rank, inputs), `B` is (outputs, rank) and `s` is
//! `alpha / rank`, or `alpha / √rank` for rsLoRA (Kalajdzievski, 2023).

mod base;
mod base_check;
mod base_dir;
mod config;
mod encoder;
mod encoder_module;
mod fault;
mod files;
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
use crate::error::{Error, Result, TensorContext};
pub use crate::layer::Module;
use crate::parameters::Parameters;
pub(crate) use base::{base_model_with, holds_adapter, holds_model};
pub use base_check::check_base;
pub use base_dir::base_model_dir;
use config::AdapterConfig;
pub use encoder_module::EncoderModule;
pub use fault::AdapterFault;
pub(crate) use files::BASE_FINGERPRINT;
pub use files::{CONFIG_FILE, WEIGHTS_FILE};
pub use modules::names_module;
use read::LowRankUpdate;
pub use settings::LoraConfig;
pub(crate) use settings::{A, B};
pub(crate) use train::Lora;
pub(crate) use write::BaseModel;

/// An adapter that matches a model.
#[derive(Debug)]
pub struct Adapter {
    dir: PathBuf,
    settings: AdapterConfig,
    /// By the canonical name of the updated weight.
    updates: BTreeMap<String, LowRankUpdate>,
    /// Whole tensors that replace the model's (`modules_to_save`), by canonical name.
    replaced: BTreeMap<String, Tensor>,
    /// Of an encoder, by the canonical name of the layer, such as `visual.blocks.0.attn.qkv`.
    encoder: BTreeMap<String, LowRankUpdate>,
}

impl Adapter {
    /// Loads the adapter in `dir` and validates it against a model of `config`.
    ///
    /// # Errors
    /// [`Error::Adapter`] with every unsupported setting and every missing, misshapen or unexpected tensor;
    /// [`Error::CorruptWeights`] for a corrupt file, and [`Error::Io`].
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self> {
        let settings = AdapterConfig::from_dir(dir)?;
        let read::Tensors { updates, replaced, encoder } = read::tensors(dir, &settings, config)?;
        Ok(Self { dir: dir.to_owned(), settings, updates, replaced, encoder })
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The base model as recorded by `peft`: a folder or a name on the hub.
    pub fn base_model(&self) -> Option<&str> {
        self.settings.base_model.as_deref()
    }

    /// Number of updated weights.
    pub fn len(&self) -> usize {
        self.updates.len() + self.replaced.len() + self.encoder.len()
    }

    /// Whether no weight is updated.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The low-rank update of a weight, if any.
    pub(crate) fn update(&self, name: &str) -> Option<&LowRankUpdate> {
        self.updates.get(name)
    }

    /// Whether the adapter updates the weight `name`.
    pub(crate) fn changes(&self, name: &str) -> bool {
        self.updates.contains_key(name) || self.replaced.contains_key(name)
    }

    /// Whether the adapter replaces the weight `name`.
    pub(crate) fn replaces(&self, name: &str) -> bool {
        self.replaced.contains_key(name)
    }

    /// The names of the decoder's updated weights.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.updates.keys().chain(self.replaced.keys()).map(String::as_str)
    }

    /// Merges the adapter into the decoder's `parameters`, in place and in f32. An encoder's part is merged when the
    /// encoder is read, or saved ([`crate::Policy::merged`]).
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if the parameters belong to another model.
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

    /// Merges the adapter into the weight `name`, in place and in f32.
    pub(crate) fn apply_to(&self, name: &str, weight: &Tensor) -> Result<()> {
        if let Some(tensor) = self.replaced.get(name) {
            memory::overwrite(weight, tensor)?;
        }
        match self.updates.get(name) {
            Some(update) => self.add(name, update, weight),
            None => Ok(()),
        }
    }

    /// Adds `update` to the weight `name`, in place and in f32.
    fn add(&self, name: &str, update: &LowRankUpdate, weight: &Tensor) -> Result<()> {
        let LowRankUpdate { a, b, scale } = update;
        let doing = || format!("merge `{name}` of `{}`", self.dir.display());
        let scaled = (b * *scale).context(doing())?;
        let columns = a.t().and_then(|a| a.contiguous()).context(doing())?;
        // W += (s·B)·(Aᵀ)ᵀ, in W's memory.
        linear::forward_add(&scaled, &columns, weight.clone(), Precision::F32)?;
        Ok(())
    }
}
