//! What of a policy is trained, and copies that are not.

use std::path::Path;

use super::Policy;
use crate::error::{Error, Result};
use crate::lora::{self, Lora};
use crate::trainable::{Trainable, unfrozen};

impl Policy {
    /// Reads the model in `dir` to train `trainable` of it: a model that a run begins with, or what [`Self::save`]
    /// wrote in the run that began with `base`. An adapter that begins is drawn with `seed`.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::with_trainable`]; [`Error::AdapterOnAdapter`] if `base` is an adapter and another
    /// one is asked for.
    pub fn load_trainable(
        dir: &Path,
        base: &Path,
        trainable: &Trainable,
        seed: u64,
    ) -> Result<Self> {
        let Trainable::Lora(config) = trainable else {
            return Self::load(dir)?.with_trainable(trainable, seed);
        };
        if lora::holds_adapter(base) {
            return Err(Error::AdapterOnAdapter { dir: base.to_owned() });
        }
        let policy = Self::load(base)?;
        let lora = match dir == base {
            true => Lora::random(config, &policy.config, seed)?,
            false => Lora::open(dir, config, &policy.config)?,
        };
        Ok(policy.with_lora(lora))
    }

    /// Trains `trainable` of a model that is whole, from now on. An adapter is drawn with `seed`.
    ///
    /// # Errors
    /// A pattern of what is to be frozen is none or is found in no name, or nothing is left to train.
    pub fn with_trainable(self, trainable: &Trainable, seed: u64) -> Result<Self> {
        match trainable {
            Trainable::All => {
                let parameters = self.weights.clone();
                Ok(Self { parameters, ..self })
            }
            Trainable::Except(patterns) => {
                let names = self.weights.tensors().keys().map(String::as_str);
                let parameters = self.weights.only(&unfrozen(patterns, names)?);
                Ok(Self { parameters, ..self })
            }
            Trainable::Lora(config) => {
                let lora = Lora::random(config, &self.config, seed)?;
                Ok(self.with_lora(lora))
            }
        }
    }

    pub(super) fn with_lora(mut self, lora: Lora) -> Self {
        lora.attach(&mut self.decoder);
        Self { parameters: lora.tensors.clone(), lora: Some(lora), ..self }
    }

    /// The same decoder, alone, which training does not reach: what is trained is copied and the rest shared. An
    /// adapter that changes nothing is left out.
    ///
    /// # Errors
    /// There is no room for the copy.
    pub fn frozen_copy(&self) -> Result<Self> {
        let own = match self.lora {
            Some(_) => self.weights.clone(),
            None => self.weights.replaced_by(&self.parameters.copied()?),
        };
        let lora = self.lora.as_ref().map(Lora::copied).transpose()?.flatten();
        self.beside(Self::new(self.config.clone(), own)?, lora)
    }

    /// A frozen model for this one, read from `dir`, where [`Self::save`] wrote an earlier state of it, or from the
    /// folder that it began with. What is not trained is shared and not read anew.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_frozen(&self, dir: &Path) -> Result<Self> {
        if let Some(lora) = &self.lora {
            let saved = match lora::holds_model(dir) {
                true => None,
                false => {
                    Some(Lora::open(dir, &lora.config, &self.config)?.to_device(self.device())?)
                }
            };
            return self.beside(Self::new(self.config.clone(), self.weights.clone())?, saved);
        }
        let read = Self::load(dir)?.with_precision(self.precision).to_device(self.device())?;
        let frozen: Vec<&str> = self
            .weights
            .iter()
            .map(|(name, _)| name)
            .filter(|name| self.parameters.get(name).is_none())
            .collect();
        if frozen.is_empty() {
            return self.beside(read, None);
        }
        let shared = read.weights.replaced_by(&self.weights.only(&frozen));
        self.beside(Self::new(read.config, shared)?, None)
    }

    /// `model` with an adapter, computed as this one.
    fn beside(&self, model: Self, lora: Option<Lora>) -> Result<Self> {
        let model =
            model.with_activation_bytes(self.activation_bytes).with_precision(self.precision);
        let model = Self { on_layer: self.on_layer.clone(), ..model };
        Ok(match lora {
            Some(lora) => model.with_lora(lora),
            None => model,
        })
    }
}
