//! Settings of the rollout.

use embodied_r_policy::{SamplingBounds, SamplingSettings};
use serde::{Deserialize, Serialize};

use super::faults::{Faults, MAX_COUNT, MAX_PER_STEP};
use crate::advantages::AdvantageEstimator;
use crate::model::Precision;

/// Which completions are sampled in a step, and how. Their length and temperature, on which the loss depends too, are
/// [`super::LossSettings`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutSettings {
    /// Completions sampled per question: the group size G. At least 2, with `reinforce_plus_plus` 1. Default: 8.
    pub num_generations: usize,
    /// Completions per step, over all questions and ranks; a multiple of `num_generations`. Default: 32.
    pub generation_batch_size: usize,
    /// Number of iterations μ over each batch of completions, with an optimizer step per mini-batch. Above 1, later iterations are off-policy.
    /// Default: 1.
    pub num_iterations: usize,
    /// Mini-batches: the questions of a step are split into this many parts, each with an optimizer step of its own in every
    /// iteration. Above 1, later ones are off-policy, and the update does not reuse the rollout's activations. Default: 1.
    pub num_mini_batches: usize,
    /// Maximum prompt length in tokens; never more than the model's context leaves. Default: 6144.
    pub max_prompt_length: usize,
    /// Nucleus sampling: probability mass to sample from; 1 disables it. Default: 1.
    pub top_p: f64,
    /// Top-k sampling: number of tokens to sample from; 0 disables it. Default: 0.
    pub top_k: usize,
    /// Minimum probability of a token relative to the most likely one; 0 disables it. Default: 0.
    pub min_p: f64,
    /// Divides positive logits, and multiplies negative ones, of tokens in the prompt or the completion; 1 disables it.
    /// Default: 1.
    pub repetition_penalty: f64,
    /// Dynamic sampling (DAPO): replace zero-variance groups with groups of other questions. Default: false.
    pub dynamic_sample: bool,
    /// Maximum resampling attempts per step with `dynamic_sample`. Default: 3.
    pub max_resample_times: u64,
    /// Leave zero-variance groups out of the update: they count neither in the loss and its normalizers nor in the KL
    /// penalty. With `dynamic_sample`, these are the groups that the last attempt has not replaced. Default: false.
    pub filter_groups: bool,
    /// Matmul precision of the rollout. A lower one than `precision` is faster; see `importance_sampling_correction`.
    /// Default: `precision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_precision: Option<Precision>,
    /// Write every step's completions as parquet. Default: true.
    pub log_completions: bool,
}

impl Default for RolloutSettings {
    fn default() -> Self {
        Self {
            num_generations: 8,
            generation_batch_size: 32,
            num_iterations: 1,
            num_mini_batches: 1,
            max_prompt_length: 6144,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            dynamic_sample: false,
            max_resample_times: 3,
            filter_groups: false,
            rollout_precision: None,
            log_completions: true,
        }
    }
}

impl RolloutSettings {
    pub(super) fn add_faults(&self, estimator: AdvantageEstimator, faults: &mut Faults) {
        let fewest = if estimator.compares_within_groups() { 2 } else { 1 };
        faults.between("num_generations", self.num_generations as u64, fewest..=MAX_PER_STEP);
        faults.between("num_iterations", self.num_iterations as u64, 1..=MAX_PER_STEP);
        faults.at_least("max_prompt_length", self.max_prompt_length as u64, 1);
        for (bounds, value) in self.sampling().given() {
            let SamplingBounds { name, want, .. } = bounds;
            faults.unless(bounds.contains(value), name, || format!("must be {want}, not {value}"));
        }
        let (batch, group) = (self.generation_batch_size, self.num_generations.max(1));
        let fits = batch as u64 <= MAX_COUNT;
        faults.unless(fits, "generation_batch_size", || {
            format!("must be at most {MAX_COUNT}, not {batch}")
        });
        let is_whole = batch > 0 && batch.is_multiple_of(group);
        faults.unless(!fits || is_whole, "generation_batch_size", || {
            let below = batch / group * group;
            let nearest = if below == 0 {
                format!("{group}")
            } else {
                format!("{below} or {}", below + group)
            };
            format!("must be a multiple of `num_generations` = {group}, not {batch}; try {nearest}")
        });
        self.mini_batch_faults(faults);
        if self.dynamic_sample {
            faults.at_least("max_resample_times", self.max_resample_times, 1);
        }
        for (key, is_set) in
            [("dynamic_sample", self.dynamic_sample), ("filter_groups", self.filter_groups)]
        {
            faults.unless(!is_set || estimator.compares_within_groups(), key, || {
                "is not supported with `advantage_estimator = \"reinforce_plus_plus\"`, where zero-variance groups have \
                 advantages too: the baseline is the batch's mean"
                    .into()
            });
        }
    }

    fn mini_batch_faults(&self, faults: &mut Faults) {
        let (parts, questions) = (self.num_mini_batches, self.questions_per_step());
        faults.between("num_mini_batches", parts as u64, 1..=MAX_PER_STEP);
        let divides = parts == 0 || questions.is_multiple_of(parts);
        faults.unless(divides, "num_mini_batches", || {
            format!(
                "must divide the questions of a step, `generation_batch_size` / `num_generations` = {questions}, not {parts}"
            )
        });
    }

    /// How completions are sampled, without the temperature.
    pub fn sampling(&self) -> SamplingSettings {
        SamplingSettings {
            temperature: None,
            top_p: Some(self.top_p),
            top_k: Some(i64::try_from(self.top_k).unwrap_or(i64::MAX)),
            min_p: Some(self.min_p),
            repetition_penalty: Some(self.repetition_penalty),
        }
    }

    /// Optimizer steps per step.
    pub fn optimizer_steps(&self) -> usize {
        self.num_iterations.saturating_mul(self.num_mini_batches)
    }

    /// Questions per step.
    pub fn questions_per_step(&self) -> usize {
        self.generation_batch_size / self.num_generations.max(1)
    }
}
