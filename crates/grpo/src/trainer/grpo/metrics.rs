//! The metrics of a step, under TRL's names.

use embodied_r_rewards::stages::weight;

use super::GrpoTrainer;
use crate::advantages::{self, Advantages};
use crate::error::Result;
use crate::estimate::peak_memory;
use crate::estimate::roofline::peak_flops_per_s;
use crate::events::Metrics;
use crate::model::{FinishReason, Group, Model};
use crate::rewards::scoring::JUDGED;
use crate::rollout::{self, Rollout};
use crate::update::micro_batch::UpdateStats;
use crate::update::optimizer::StepResult;

impl<M: Model> GrpoTrainer<'_, M> {
    /// Reward metrics: the weighted sum, and mean, standard deviation and weight of each reward.
    pub(super) fn reward_metrics(
        &self,
        rollouts: &[Rollout],
        found: &Advantages,
        step: u64,
        metrics: &mut Metrics,
    ) {
        let rewards: Vec<_> = rollout::rewards(rollouts).collect();
        put(metrics, "reward", advantages::mean(&rewards));
        put(metrics, "reward_std", advantages::std(&rewards));
        put(metrics, "frac_reward_zero_std", found.frac_reward_zero_std);
        let weights = self.plan.weights(step);
        for (column, function) in self.rewards.iter().enumerate() {
            let name = function.reward.name();
            let scores: Vec<Option<f64>> = completions(rollouts)
                .map(|completion| completion.scores[column].as_ref().and_then(|score| score.value))
                .collect();
            if scores.iter().any(Option::is_some) {
                put(metrics, &format!("rewards/{name}/mean"), advantages::mean(&scores));
                put(metrics, &format!("rewards/{name}/std"), advantages::std(&scores));
            }
            if name == JUDGED {
                let accuracy = accuracy_where_scored(rollouts, column);
                put_some(metrics, &format!("rewards/{name}/accuracy"), accuracy);
            }
            put(metrics, &format!("reward_weights/{name}"), weight(&weights, name));
        }
        put(metrics, "stage", self.plan.stage_at(step) as f64);
    }

    /// Length metrics, over all completions and over those that terminated.
    pub(super) fn length_metrics(&self, rollouts: &[Rollout], metrics: &mut Metrics) {
        let all: Vec<f64> = completions(rollouts).map(|c| c.ids.len() as f64).collect();
        let ended: Vec<f64> = completions(rollouts)
            .filter(|completion| completion.finish == FinishReason::Stop)
            .map(|completion| completion.ids.len() as f64)
            .collect();
        let clipped = 1.0 - ended.len() as f64 / all.len().max(1) as f64;
        for (lengths, kind) in [(all, "length"), (ended, "terminated_length")] {
            let n = lengths.len().max(1) as f64;
            let least = lengths.iter().copied().reduce(f64::min).unwrap_or(0.0);
            let most = lengths.iter().copied().reduce(f64::max).unwrap_or(0.0);
            put(metrics, &format!("completions/mean_{kind}"), lengths.iter().sum::<f64>() / n);
            put(metrics, &format!("completions/min_{kind}"), least);
            put(metrics, &format!("completions/max_{kind}"), most);
        }
        put(metrics, "completions/clipped_ratio", clipped);
    }

    /// Means over the step's iterations, its learning rate, and the gradient norm of the last iteration.
    pub(super) fn update_metrics(
        &self,
        step: u64,
        iterations: &[UpdateStats],
        applied: StepResult,
        metrics: &mut Metrics,
    ) {
        put_means(iterations, metrics);
        put(metrics, "grad_norm", applied.grad_norm);
        put(metrics, "learning_rate", self.plan.learning_rate(step, 0));
    }
}

/// Loss, KL, entropy and clip ratios, means over `iterations` as TRL logs them.
fn put_means(iterations: &[UpdateStats], metrics: &mut Metrics) {
    let mean = |value: &dyn Fn(&UpdateStats) -> f64| {
        iterations.iter().map(value).sum::<f64>() / iterations.len().max(1) as f64
    };
    put(metrics, "loss", mean(&|stats| stats.loss));
    if iterations.iter().any(|stats| stats.loss_stats.kl().is_some()) {
        put(metrics, "kl", mean(&|stats| stats.loss_stats.kl().unwrap_or(0.0)));
        let bounded = iterations.iter().map(|stats| stats.loss_stats.kl_bounded()).sum();
        put(metrics, "kl_bounded_tokens", bounded);
    }
    put(metrics, "entropy", mean(&|stats| stats.entropy / stats.tokens.max(1.0)));
    let low = mean(&|stats| stats.loss_stats.clip_low_mean());
    let high = mean(&|stats| stats.loss_stats.clip_high_mean());
    put(metrics, "clip_ratio/low_mean", low);
    put(metrics, "clip_ratio/low_min", mean(&|stats| stats.loss_stats.clip_low_min()));
    put(metrics, "clip_ratio/high_mean", high);
    put(metrics, "clip_ratio/high_max", mean(&|stats| stats.loss_stats.clip_high_max()));
    put(metrics, "clip_ratio/region_mean", low + high);
}

/// Seconds and peak memory of each phase.
#[derive(Default)]
pub(super) struct Times {
    pub(super) rollout: f64,
    pub(super) rewards: f64,
    pub(super) reference: f64,
    pub(super) update: f64,
    pub(super) optimizer: f64,
    pub(super) memory: PeakMemory,
}

/// Peak memory of each phase in GB, where the operating system reports it.
#[derive(Default)]
pub(super) struct PeakMemory {
    pub(super) rollout: Option<f64>,
    pub(super) reference: Option<f64>,
    pub(super) update: Option<f64>,
}

impl Times {
    /// Seconds of the entire step.
    pub(super) fn total(&self) -> f64 {
        self.rollout + self.rewards + self.reference + self.update + self.optimizer
    }

    /// Adds the step time, phase times, throughput and memory.
    pub(super) fn add_to(&self, tokens: u64, metrics: &mut Metrics) {
        let total = self.total();
        put(metrics, "step_time", total);
        put(metrics, "tokens_per_second", tokens as f64 / total.max(1e-9));
        put(metrics, "time/rollout", self.rollout);
        put(metrics, "time/rewards", self.rewards);
        put(metrics, "time/reference", self.reference);
        put(metrics, "time/update", self.update);
        put(metrics, "time/optimizer", self.optimizer);
        let PeakMemory { rollout, reference, update } = &self.memory;
        for (name, peak) in [("rollout", rollout), ("reference", reference), ("update", update)] {
            if let Some(peak) = peak {
                put(metrics, &format!("memory/{name}_gb"), *peak);
            }
        }
    }
}

impl<M: Model> GrpoTrainer<'_, M> {
    /// The peak memory on the device since the last call, in GB; resets it.
    pub(super) fn take_peak_gb(&self) -> Result<Option<f64>> {
        Ok(peak_memory::take_peak_bytes(&self.run.device)?.map(|bytes| bytes as f64 / 1e9))
    }

    /// `mfu`, model FLOPs utilization: matmul FLOPs of rank 0's share of the step over the step's time, relative to the
    /// device's peak. A forward pass each for rollout and reference, and three per iteration of the update; recomputation
    /// does not count (Chowdhery and others 2022, appendix B). `matmul_share` leaves out the forward pass that a reused
    /// rollout saves.
    pub(super) fn mfu_metrics(
        &mut self,
        groups: &[Group],
        reuses_rollout: bool,
        times: &Times,
        metrics: &mut Metrics,
    ) -> Result<()> {
        let forward = self.run.model.forward_flops(groups);
        if forward == 0.0 {
            return Ok(());
        }
        let peak = match self.peak_flops {
            Some(peak) => peak,
            None => peak_flops_per_s(&self.run.device, self.settings.run.precision.into())?
                .unwrap_or(f64::NAN),
        };
        self.peak_flops = Some(peak);
        let reference =
            f64::from(u8::from(self.reference.is_some() && self.settings.loss.beta > 0.0));
        let passes = 1.0 + reference + 3.0 * self.settings.rollout.num_iterations as f64;
        // The first update reuses the rollout's forward pass if its activations were cached.
        let reused = f64::from(u8::from(reuses_rollout));
        let share = |passes: f64| passes * forward / times.total().max(1e-9) / peak;
        put(metrics, "matmul_share", share(passes - reused));
        put(metrics, "mfu", share(passes));
        Ok(())
    }
}

fn completions(rollouts: &[Rollout]) -> impl Iterator<Item = &rollout::Completion> {
    rollouts.iter().flat_map(|rollout| &rollout.completions)
}

/// The mean accuracy, the first score, of the completions that have score `column`; `None` if none has. Numeric questions
/// have no consistency, so the share of correct answers that are consistent needs this accuracy.
pub(super) fn accuracy_where_scored(rollouts: &[Rollout], column: usize) -> Option<f64> {
    let value = |completion: &rollout::Completion, column: usize| {
        completion.scores.get(column)?.as_ref()?.value
    };
    let scored = completions(rollouts).filter(|completion| value(completion, column).is_some());
    let accuracies: Vec<Option<f64>> = scored.map(|completion| value(completion, 0)).collect();
    (!accuracies.is_empty()).then(|| advantages::mean(&accuracies))
}

fn put_some(metrics: &mut Metrics, name: &str, value: Option<f64>) {
    value.into_iter().for_each(|value| put(metrics, name, value));
}

/// JSON cannot represent non-finite values, so they are omitted.
fn put(metrics: &mut Metrics, name: &str, value: f64) {
    if value.is_finite() {
        metrics.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_iteration_counts_equally() {
        let stats = |loss: f64, tokens: f64, low: f64, high: f64, kl: f64| -> UpdateStats {
            let loss_stats = json!({
                "ratios": tokens, "low": low, "high": high, "low_min": low / tokens, "high_max": high / tokens,
                "kl": kl * tokens, "kl_tokens": tokens, "bounded": 1.0,
            });
            let stats = json!({
                "loss": loss, "loss_stats": loss_stats, "entropy": 2.0 * tokens, "logps": 0.0, "tokens": tokens,
            });
            serde_json::from_value(stats).unwrap()
        };
        let mut metrics = Metrics::new();
        put_means(&[stats(1.0, 8.0, 0.0, 0.0, 0.0), stats(3.0, 8.0, 2.0, 4.0, 0.5)], &mut metrics);
        let expected = [
            ("clip_ratio/high_max", 0.25),
            ("clip_ratio/high_mean", 0.25),
            ("clip_ratio/low_mean", 0.125),
            ("clip_ratio/low_min", 0.125),
            ("clip_ratio/region_mean", 0.375),
            ("entropy", 2.0),
            ("kl", 0.25),
            ("kl_bounded_tokens", 2.0),
            ("loss", 2.0),
        ];
        let mut found: Vec<_> =
            metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        found.sort_by(|a, b| a.0.cmp(b.0));
        assert_eq!(found, expected);
    }
}
