//! Group relative policy optimization, from rollouts to checkpoints.

mod data;
mod dump;
mod evaluate;
mod metrics;
mod progress;
mod reference;
mod reward_check;
mod sampling;
mod stages;
mod start;
mod step;

use std::sync::Arc;

use embodied_r_rewards::Judge;

use crate::data::questions::TokenizedQuestion;
use crate::data::sampler::BatchSampler;
use crate::model::{ActivationCacheOptions, Model};
use crate::rewards::judge::ReferenceModel;
use crate::rewards::scoring::RewardFunction;
use crate::schedule::training_plan::TrainingPlan;
use crate::settings::GrpoSettings;
use crate::trainer::{Run, RunInputs};
pub use data::GrpoData;

/// Inputs of a run, except its model.
pub struct GrpoInputs<'a> {
    /// The settings, already validated.
    pub settings: &'a GrpoSettings,
    /// The questions, and what follows from them and the settings.
    pub data: GrpoData,
    /// An external judge; by default the frozen reference judges.
    pub judge: Option<Box<dyn Judge>>,
    /// How much of the rollout's activations the update reuses. The number of layers is fixed when the run starts,
    /// since the gradients' bits depend on it.
    pub activation_cache: Option<ActivationCacheOptions>,
    /// Whether to compare the first step's packed gradients with per-completion gradients.
    pub verify_packing: bool,
    /// What every run has.
    pub run: RunInputs<'a>,
}

/// A GRPO training run.
pub struct GrpoTrainer<'a, M: Model> {
    run: Run<'a, M>,
    settings: &'a GrpoSettings,
    questions: Vec<TokenizedQuestion>,
    eval: Vec<TokenizedQuestion>,
    reference: Option<Arc<ReferenceModel<M>>>,
    /// Whether the reference has changed since it was saved.
    reference_moved: bool,
    /// Whether to verify the next step's packed gradients.
    verify_packing: bool,
    /// How much of the rollout's activations the update reuses.
    activation_cache_options: Option<ActivationCacheOptions>,
    /// The cache's memory, reused from step to step.
    activation_cache: Option<M::ActivationCache>,
    /// Peak FLOP/s of the device; `None` before the first step, NaN if unknown.
    peak_flops: Option<f64>,
    rewards: Vec<RewardFunction>,
    sampler: BatchSampler,
    plan: TrainingPlan,
}

#[cfg(test)]
mod tests;
