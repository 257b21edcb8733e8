//! AdamW or Muon over a model's parameters, with their moments.
//!
//! Of several ranks each has a part of AdamW's moments and moves that part of the weights (ZeRO-1), which is handed round
//! before they are used again. Muon needs matrices as a whole: its moments are on every rank, and all of them move all
//! weights.

mod reducing;
mod sharded;
mod shards;
mod stored;
mod summed;
mod whole;

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::AdamwStep;
use embodied_r_policy::WeightDtype;
use embodied_r_policy::weights;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Gradients as _, Model};
use crate::settings::Faults;
use crate::team::Team;
use reducing::{Reducing, Summing};
use sharded::Sharded;
use stored::Stored;
pub(crate) use stored::file_name;
pub use summed::{Reduction, Summed};
use summed::{Sum, Way};
use whole::Whole;

/// Which rule moves the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optim {
    /// AdamW for all.
    #[default]
    Adamw,
    /// Muon for the matrices between embedding and head, AdamW for all else.
    Muon,
}

/// The optimiser's numbers that stay the same in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// The rule.
    pub optim: Optim,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Norm to which gradients are clipped.
    pub max_grad_norm: f64,
}

impl OptimizerSettings {
    pub(crate) fn faults(&self, faults: &mut Faults) {
        faults.share("adam_beta1", self.beta1);
        faults.share("adam_beta2", self.beta2);
        faults.positive("adam_epsilon", self.epsilon);
        faults.not_negative("weight_decay", self.weight_decay);
        faults.positive("max_grad_norm", self.max_grad_norm);
    }
}

/// How one step went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Applied {
    /// The gradient's norm before it was clipped.
    pub grad_norm: f64,
    /// Whether the step was taken: it is not if the norm is infinite or not a number.
    pub taken: bool,
}

/// An optimiser with its moments, all in `f32`.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    team: Team,
    moments: Moments,
    steps: u64,
    /// Whether each rank has moved weights that the others have not got yet.
    is_scattered: bool,
}

/// Where the moments are.
#[derive(Debug)]
enum Moments {
    /// All of them, on every rank.
    Whole(Whole),
    /// A part on each.
    Sharded(Arc<Sharded>),
}

impl Moments {
    fn new<M: Model>(
        settings: OptimizerSettings,
        model: &M,
        team: &Team,
        stored: Option<&Stored>,
    ) -> Result<Self> {
        let parts = team.size() > 1 && settings.optim == Optim::Adamw;
        Ok(match parts {
            true => {
                let sharded = Sharded::new(team.communicator().clone(), model, stored)?;
                Self::Sharded(Arc::new(sharded))
            }
            false => Self::Whole(Whole::new(settings.optim, model, stored)?),
        })
    }
}

impl Optimizer {
    /// An optimiser for `model` with moments of 0, of which this rank of `team` has its part.
    ///
    /// # Errors
    /// A moment cannot be allocated.
    pub fn new<M: Model>(settings: OptimizerSettings, model: &M, team: &Team) -> Result<Self> {
        let moments = Moments::new(settings, model, team, None)?;
        Ok(Self { settings, team: team.clone(), moments, steps: 0, is_scattered: false })
    }

    /// Begins to sum `gradients` of all ranks, to which a backward still adds.
    ///
    /// # Errors
    /// A parameter has no gradient.
    pub fn reduction<M: Model>(&self, model: &M, gradients: &M::Gradients) -> Result<Reduction> {
        if self.team.size() == 1 {
            return Ok(Reduction::new(None));
        }
        let missing = |name: &str| Error::Model { what: format!("has no gradient for `{name}`") };
        let of = |name: &str| gradients.get(name).cloned().ok_or_else(|| missing(name));
        let gradients =
            model.parameters().iter().map(|(name, _)| of(name)).collect::<Result<_>>()?;
        Ok(Reduction::new(Some(match &self.moments {
            Moments::Sharded(sharded) => Way::Parts(Reducing::new(sharded, gradients)),
            Moments::Whole(_) => {
                Way::Whole(Summing::new(self.team.communicator().clone(), gradients))
            }
        })))
    }

    /// Clips the gradients to the largest norm allowed and takes a step with learning rate `lr`, unless a gradient is not
    /// finite. Where ranks share the moments out, each moves its part of the weights, and has old ones of the others until
    /// [`Self::hand_round`].
    ///
    /// Matrices decay; vectors, which are norms and biases, do not.
    ///
    /// # Errors
    /// A parameter has no gradient or moment, or a tensor is not what the kernel works on.
    pub fn step<M: Model>(
        &mut self,
        model: &M,
        gradients: &Summed<'_, M::Gradients>,
        lr: f64,
    ) -> Result<Applied> {
        let grad_norm = gradients.norm;
        if !grad_norm.is_finite() {
            return Ok(Applied { grad_norm, taken: false });
        }
        let bound = self.settings.max_grad_norm;
        let grad_scale = if grad_norm > bound { bound / (grad_norm + 1e-6) } else { 1.0 };
        self.steps += 1;
        let OptimizerSettings { beta1, beta2, epsilon: eps, weight_decay, .. } = self.settings;
        let step = self.steps;
        let of = |is_matrix: bool| {
            let weight_decay = if is_matrix { weight_decay } else { 0.0 };
            AdamwStep { lr, beta1, beta2, eps, weight_decay, step, grad_scale }
        };
        match (&self.moments, &gradients.of) {
            (Moments::Whole(whole), Sum::Whole(gradients)) => whole.step(model, *gradients, of)?,
            (Moments::Sharded(sharded), Sum::Part(reduced)) => {
                sharded.step(model, reduced, of)?;
                self.is_scattered = true;
            }
            _ => return Err(Error::Model { what: "was summed by another optimiser".into() }),
        }
        Ok(Applied { grad_norm, taken: true })
    }

    /// Gives every rank the weights that the others have moved, if they are not handed round yet. `meanwhile` runs at the
    /// same time; it may neither use the weights nor talk to other ranks.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn hand_round<M: Model, T>(
        &mut self,
        model: &M,
        meanwhile: impl FnOnce() -> T,
    ) -> Result<T> {
        let Moments::Sharded(sharded) = &self.moments else { return Ok(meanwhile()) };
        if !std::mem::take(&mut self.is_scattered) {
            return Ok(meanwhile());
        }
        std::thread::scope(|scope| {
            let handing = scope.spawn(|| sharded.hand_round(model));
            let done = meanwhile();
            handing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(done)
        })
    }

    /// The ranks that take its steps together.
    #[must_use]
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// Steps taken since the moments were 0.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Forgets all moments.
    ///
    /// # Errors
    /// A moment cannot be allocated.
    pub fn restart<M: Model>(&mut self, model: &M) -> Result<()> {
        *self = Self::new(self.settings, model, &self.team)?;
        Ok(())
    }

    /// How many files the moments go to, one of each rank that has a part of them.
    #[must_use]
    pub fn files(&self) -> usize {
        match &self.moments {
            Moments::Whole(_) => 1,
            Moments::Sharded(_) => self.team.size(),
        }
    }

    /// Writes this rank's moments into `folder`, a tensor at a time and without a copy of any.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save<M: Model>(&self, model: &M, folder: &Path) -> Result<()> {
        let pieces = match &self.moments {
            Moments::Whole(_) if !self.team.is_first() => return Ok(()),
            Moments::Whole(whole) => whole.pieces(),
            Moments::Sharded(sharded) => sharded.pieces(model)?,
        };
        let tensors =
            pieces.iter().map(|(name, tensor): &(String, Tensor)| (name.as_str(), tensor));
        let path = folder.join(file_name(self.team.rank(), self.files()));
        Ok(weights::save_file(&path, tensors, WeightDtype::F32)?)
    }

    /// Reads this rank's part of the moments in `folder`, which [`Optimizer::save`] wrote into `files` files, of an
    /// optimiser that had taken `steps` steps. The ranks need not be as many as then.
    ///
    /// # Errors
    /// A file cannot be read, or its moments are not those of `model`.
    pub fn load<M: Model>(
        settings: OptimizerSettings,
        model: &M,
        team: &Team,
        folder: &Path,
        (files, steps): (usize, u64),
    ) -> Result<Self> {
        let stored = Stored::open(folder, files)?;
        let moments = Moments::new(settings, model, team, Some(&stored))?;
        Ok(Self { settings, team: team.clone(), moments, steps, is_scattered: false })
    }
}

#[cfg(test)]
mod tests;
