//! Trainable parameters of a policy, and frozen copies (reference models).

use std::path::Path;

use candle_core::Device;
use embodied_r_kernels::Precision;
use embodied_r_kernels::device::has_kernels;

use super::Policy;
use crate::error::{Error, Result};
use crate::lora::{self, Lora};
use crate::trainable::{Trainable, unfrozen};

impl Policy {
    /// Loads the model in `dir` for training `trainable`: the run's base model `base` itself, or a checkpoint that
    /// [`Self::save`] wrote in a run with this base model. A new adapter is initialized with `seed`.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::with_trainable`]; [`Error::AdapterOnAdapter`] if an adapter is to be trained and
    /// `base` is an adapter too.
    pub fn load_trainable(
        dir: &Path,
        base: &Path,
        trainable: &Trainable,
        seed: u64,
    ) -> Result<Self> {
        Self::load_trainable_on(&Device::Cpu, (dir, base), trainable, seed, Precision::F32)
    }

    /// As [`Self::load_trainable`] of `dir` and `base`, on `device`, as [`Self::load_on`].
    ///
    /// # Errors
    /// As [`Self::load_trainable`] and [`Self::load_on`].
    pub fn load_trainable_on(
        device: &Device,
        (dir, base): (&Path, &Path),
        trainable: &Trainable,
        seed: u64,
        precision: Precision,
    ) -> Result<Self> {
        let Trainable::Lora(config) = trainable else {
            return Self::load_on(device, dir, precision)?.with_trainable(trainable, seed);
        };
        if lora::holds_adapter(base) {
            return Err(Error::AdapterOnAdapter { dir: base.to_owned() });
        }
        let policy = Self::load_on(device, base, precision)?;
        config.check_rank(&policy.config)?;
        let config = config.on_base(base)?;
        let lora = match dir == base {
            true => Lora::random(&config, &policy.config, seed)?,
            false => {
                lora::check_base(dir, base)?;
                Lora::open(dir, &config, &policy.config)?
            }
        };
        policy.with_lora(&lora)
    }

    /// Sets the trainable parameters. A new adapter is initialized with `seed`.
    ///
    /// # Errors
    /// A freeze pattern is invalid or matches no parameter, or nothing is left to train.
    pub fn with_trainable(self, trainable: &Trainable, seed: u64) -> Result<Self> {
        match trainable {
            Trainable::All => {
                let parameters = self.weights.clone();
                Ok(Self { parameters, ..self })
            }
            Trainable::AllExcept(patterns) => {
                let names = self.weights.tensors().keys().map(String::as_str);
                let parameters = self.weights.only(&unfrozen(patterns, names)?);
                Ok(Self { parameters, ..self })
            }
            Trainable::Lora(config) => {
                let lora = Lora::random(config, &self.config, seed)?;
                self.with_lora(&lora)
            }
        }
    }

    /// Trains `lora`, on the device of the weights and in the dtype of the matrices there.
    pub(super) fn with_lora(mut self, lora: &Lora) -> Result<Self> {
        let lora = lora.to_device(self.device(), self.decoder.embedding.dtype())?;
        lora.attach(&mut self.decoder);
        Ok(Self { parameters: lora.tensors.clone(), lora: Some(lora), ..self })
    }

    /// A frozen copy of the decoder, such as a reference model: trained tensors are copied, frozen ones shared. An
    /// adapter with no effect is omitted.
    ///
    /// # Errors
    /// Out of memory.
    pub fn frozen_copy(&self) -> Result<Self> {
        let own = match self.lora {
            Some(_) => self.weights.clone(),
            None => {
                let own = self.weights.replaced_by(&self.parameters.copied()?);
                // Frozen projections stay shared.
                let all = self.parameters.len() == own.len();
                match all && has_kernels(self.device()) {
                    true => own.with_contiguous_projections(self.config.num_hidden_layers)?,
                    false => own,
                }
            }
        };
        let lora = self.lora.as_ref().map(Lora::copied).transpose()?.flatten();
        self.configured_like(Self::new(self.config.clone(), own)?, lora)
    }

    /// Loads a frozen model, such as a reference model, from a checkpoint of this run in `dir` or from its base model.
    /// Frozen tensors are shared with this policy.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_frozen(&self, dir: &Path) -> Result<Self> {
        if let Some(lora) = &self.lora {
            let saved = match lora::holds_model(dir) {
                true => None,
                false => Some(Lora::open(dir, &lora.config, &self.config)?),
            };
            return self
                .configured_like(Self::new(self.config.clone(), self.weights.clone())?, saved);
        }
        let read = Self::load_on(self.device(), dir, self.precision)?;
        let frozen: Vec<&str> = self
            .weights
            .iter()
            .map(|(name, _)| name)
            .filter(|name| self.parameters.get(name).is_none())
            .collect();
        if frozen.is_empty() {
            return self.configured_like(read, None);
        }
        let shared = read.weights.replaced_by(&self.weights.only(&frozen));
        self.configured_like(Self::new(read.config, shared)?, None)
    }

    /// `model` with an adapter and the settings of this policy.
    fn configured_like(&self, model: Self, lora: Option<Lora>) -> Result<Self> {
        let model =
            model.with_activation_bytes(self.activation_bytes).with_precision(self.precision);
        let (layer_hook, images) = (self.layer_hook.clone(), self.images.clone());
        let model = Self { layer_hook, images, ..model };
        match lora {
            Some(lora) => model.with_lora(&lora),
            None => Ok(model),
        }
    }
}
