//! AdamW and Muon, with their state.
//!
//! With several ranks, AdamW's state is sharded (ZeRO-1): each rank updates its shard of the weights, which are
//! all-gathered before their next use. Muon needs entire matrices: its state is replicated, and every rank updates all
//! weights.

mod in_flight;
mod reduction;
mod replicated;
mod shard_layout;
mod sharded;
mod state_files;

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::AdamwStep;
use embodied_r_policy::WeightDtype;
use embodied_r_policy::weights;

use crate::error::{Error, Result};
use crate::model::{Model, NamedGradients as _};
use crate::settings::{Optim, OptimizerSettings};
use embodied_r_dist::ProcessGroup;
use in_flight::{AllReduceQueue, ReduceScatterQueue};
use reduction::{Reduced, Reducer};
pub use reduction::{ReducedGradients, Reduction};
use replicated::Replicated;
pub use shard_layout::BUCKET_BYTES;
use sharded::Sharded;
use state_files::StateFiles;
pub(crate) use state_files::file_name;

/// Result of one optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepResult {
    /// The gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether the step was applied; it is skipped if the gradient norm is non-finite.
    pub taken: bool,
}

/// An optimizer with its state, all in `f32`.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    process_group: ProcessGroup,
    moments: Moments,
    steps: u64,
    /// Whether ranks have updated weight shards that are not all-gathered yet.
    weights_are_stale: bool,
}

/// How the optimizer state is distributed.
#[derive(Debug)]
enum Moments {
    /// Replicated on every rank.
    Replicated(Replicated),
    /// Sharded over the ranks.
    Sharded(Arc<Sharded>),
}

impl Moments {
    fn new<M: Model>(
        settings: OptimizerSettings,
        model: &M,
        process_group: &ProcessGroup,
        stored: Option<&StateFiles>,
    ) -> Result<Self> {
        let parts = process_group.world_size() > 1 && settings.optim == Optim::Adamw;
        Ok(match parts {
            true => {
                let sharded = Sharded::new(process_group.communicator().clone(), model, stored)?;
                Self::Sharded(Arc::new(sharded))
            }
            false => Self::Replicated(Replicated::new(settings.optim, model, stored)?),
        })
    }
}

impl Optimizer {
    /// An optimizer for `model` with zero moments; sharded over `process_group` where the optimizer allows it.
    ///
    /// # Errors
    /// The state cannot be allocated.
    pub fn new<M: Model>(
        settings: OptimizerSettings,
        model: &M,
        process_group: &ProcessGroup,
    ) -> Result<Self> {
        let moments = Moments::new(settings, model, process_group, None)?;
        Ok(Self {
            settings,
            process_group: process_group.clone(),
            moments,
            steps: 0,
            weights_are_stale: false,
        })
    }

    /// Starts the reduction of `gradients` over all ranks while the backward pass still accumulates into them.
    ///
    /// # Errors
    /// A parameter has no gradient.
    pub fn reduction<M: Model>(&self, model: &M, gradients: &M::Gradients) -> Result<Reduction> {
        if self.process_group.world_size() == 1 {
            return Ok(Reduction::new(None));
        }
        let missing = |name: &str| Error::Model { what: format!("has no gradient for `{name}`") };
        let of = |name: &str| gradients.get(name).cloned().ok_or_else(|| missing(name));
        let gradients =
            model.parameters().iter().map(|(name, _)| of(name)).collect::<Result<_>>()?;
        Ok(Reduction::new(Some(match &self.moments {
            Moments::Sharded(sharded) => {
                Reducer::Sharded(ReduceScatterQueue::new(sharded, gradients))
            }
            Moments::Replicated(_) => Reducer::Replicated(AllReduceQueue::new(
                self.process_group.communicator().clone(),
                gradients,
            )),
        })))
    }

    /// Clips the gradients to `max_grad_norm` and applies a step with learning rate `lr`, unless a gradient is
    /// non-finite. With sharded state, each rank updates its shard of the weights; the others are stale until
    /// [`Self::all_gather_weights`].
    ///
    /// Weight decay applies to matrices only, not to norms and biases.
    ///
    /// # Errors
    /// A parameter has no gradient or state, or a tensor does not fit the kernel.
    pub fn step<M: Model>(
        &mut self,
        model: &M,
        gradients: &ReducedGradients<'_, M::Gradients>,
        lr: f64,
    ) -> Result<StepResult> {
        let grad_norm = gradients.norm;
        if !grad_norm.is_finite() {
            return Ok(StepResult { grad_norm, taken: false });
        }
        let bound = self.settings.max_grad_norm;
        let grad_scale = if grad_norm > bound { bound / (grad_norm + 1e-6) } else { 1.0 };
        self.steps += 1;
        let OptimizerSettings {
            adam_beta1: beta1,
            adam_beta2: beta2,
            adam_epsilon: eps,
            weight_decay,
            ..
        } = self.settings;
        let step = self.steps;
        let step_for = |name: &str, is_matrix: bool| {
            let weight_decay = if is_matrix { weight_decay } else { 0.0 };
            let lr = lr * model.learning_rate_scale(name);
            AdamwStep { lr, beta1, beta2, eps, weight_decay, step, grad_scale }
        };
        match (&self.moments, &gradients.of) {
            (Moments::Replicated(replicated), Reduced::Replicated(gradients)) => {
                replicated.step(model, *gradients, step_for)?
            }
            (Moments::Sharded(sharded), Reduced::Sharded(reduced)) => {
                sharded.step(model, reduced, step_for)?;
                self.weights_are_stale = true;
            }
            _ => {
                return Err(Error::Model {
                    what: "has gradients reduced by another optimizer".into(),
                });
            }
        }
        Ok(StepResult { grad_norm, taken: true })
    }

    /// All-gathers the weight shards that the ranks have updated, if they are stale. `meanwhile` runs concurrently; it
    /// may neither use the weights nor communicate with other ranks.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn all_gather_weights<M: Model, T>(
        &mut self,
        model: &M,
        meanwhile: impl FnOnce() -> T,
    ) -> Result<T> {
        let Moments::Sharded(sharded) = &self.moments else { return Ok(meanwhile()) };
        if !std::mem::take(&mut self.weights_are_stale) {
            return Ok(meanwhile());
        }
        std::thread::scope(|scope| {
            let gathering = scope.spawn(|| sharded.all_gather_weights(model));
            let done = meanwhile();
            gathering.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(done)
        })
    }

    /// The ranks that share its steps.
    #[must_use]
    pub fn process_group(&self) -> &ProcessGroup {
        &self.process_group
    }

    /// Steps applied since the state was reset.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Resets all state.
    ///
    /// # Errors
    /// The state cannot be allocated.
    pub fn restart<M: Model>(&mut self, model: &M) -> Result<()> {
        *self = Self::new(self.settings, model, &self.process_group)?;
        Ok(())
    }

    /// The number of state files: one per rank that holds a shard.
    #[must_use]
    pub fn files(&self) -> usize {
        match &self.moments {
            Moments::Replicated(_) => 1,
            Moments::Sharded(_) => self.process_group.world_size(),
        }
    }

    /// Writes this rank's state into `folder`, one tensor at a time, without copying.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save<M: Model>(&self, model: &M, folder: &Path) -> Result<()> {
        let pieces = match &self.moments {
            Moments::Replicated(_) if !self.process_group.is_rank_zero() => return Ok(()),
            Moments::Replicated(replicated) => replicated.named_tensors(),
            Moments::Sharded(sharded) => sharded.named_tensors(model)?,
        };
        let tensors =
            pieces.iter().map(|(name, tensor): &(String, Tensor)| (name.as_str(), tensor));
        let path = folder.join(file_name(self.process_group.rank(), self.files()));
        Ok(weights::save_file(&path, tensors, WeightDtype::F32)?)
    }

    /// Loads this rank's state from `folder`, which [`Optimizer::save`] wrote into `files` files after `steps` steps.
    /// The number of ranks may differ from then.
    ///
    /// # Errors
    /// A file cannot be read, or its state does not match `model`.
    pub fn load<M: Model>(
        settings: OptimizerSettings,
        model: &M,
        process_group: &ProcessGroup,
        folder: &Path,
        (files, steps): (usize, u64),
    ) -> Result<Self> {
        let stored = StateFiles::open(folder, files)?;
        let moments = Moments::new(settings, model, process_group, Some(&stored))?;
        Ok(Self {
            settings,
            process_group: process_group.clone(),
            moments,
            steps,
            weights_are_stale: false,
        })
    }
}

#[cfg(test)]
mod tests;
