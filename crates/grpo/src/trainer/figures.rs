//! The figures of a step, under TRL's names.

use embodied_r_rewards::stages::weight;

use super::Trainer;
use super::step::Times;
use crate::advantages::{self, Advantages};
use crate::events::Metrics;
use crate::micro_batch::Told;
use crate::model::{Finish, Model};
use crate::optimizer::Applied;
use crate::rollout::{self, Rollout};

impl<M: Model> Trainer<'_, M> {
    /// Rewards: the weighted sum, and every raw score with its weight.
    pub(super) fn reward_figures(
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
        for (column, asked) in self.rewards.iter().enumerate() {
            let name = asked.reward.name();
            let scores: Vec<Option<f64>> = completions(rollouts)
                .map(|completion| completion.scores[column].as_ref().and_then(|score| score.value))
                .collect();
            if scores.iter().any(Option::is_some) {
                put(metrics, &format!("rewards/{name}/mean"), advantages::mean(&scores));
                put(metrics, &format!("rewards/{name}/std"), advantages::std(&scores));
            }
            put(metrics, &format!("reward_weights/{name}"), weight(&weights, name));
        }
        put(metrics, "stage", self.plan.stage_at(step) as f64);
    }

    /// Lengths of the completions, of all and of those that ended by themselves.
    pub(super) fn length_figures(&self, rollouts: &[Rollout], metrics: &mut Metrics) {
        let all: Vec<f64> = completions(rollouts).map(|c| c.ids.len() as f64).collect();
        let ended: Vec<f64> = completions(rollouts)
            .filter(|completion| completion.finish == Finish::Stop)
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

    /// Loss, divergence, entropy, clipping and gradient.
    pub(super) fn update_figures(
        &self,
        step: u64,
        told: &Told,
        applied: Applied,
        metrics: &mut Metrics,
    ) {
        put(metrics, "loss", told.loss);
        put(metrics, "grad_norm", applied.grad_norm);
        put(metrics, "learning_rate", self.plan.learning_rate(step, 0));
        if let Some(kl) = told.stats.kl() {
            put(metrics, "kl", kl);
            put(metrics, "kl_bounded_tokens", told.stats.kl_bounded());
        }
        put(metrics, "entropy", told.entropy / told.tokens.max(1.0));
        let stats = &told.stats;
        put(metrics, "clip_ratio/low_mean", stats.clip_low_mean());
        put(metrics, "clip_ratio/low_min", stats.clip_low_min());
        put(metrics, "clip_ratio/high_mean", stats.clip_high_mean());
        put(metrics, "clip_ratio/high_max", stats.clip_high_max());
        let region = stats.clip_low_mean() + stats.clip_high_mean();
        put(metrics, "clip_ratio/region_mean", region);
    }
}

impl Times {
    /// Seconds of the step and of its phases, and `tokens` per second.
    pub(super) fn figures(&self, tokens: u64, metrics: &mut Metrics) {
        let total = self.rollout + self.rewards + self.reference + self.update;
        put(metrics, "step_time", total);
        put(metrics, "tokens_per_second", tokens as f64 / total.max(1e-9));
        put(metrics, "time/rollout", self.rollout);
        put(metrics, "time/rewards", self.rewards);
        put(metrics, "time/reference", self.reference);
        put(metrics, "time/update", self.update);
    }
}

fn completions(rollouts: &[Rollout]) -> impl Iterator<Item = &rollout::Completion> {
    rollouts.iter().flat_map(|rollout| &rollout.completions)
}

/// JSON knows no infinity, so a figure that is not finite is left out.
fn put(metrics: &mut Metrics, name: &str, value: f64) {
    if value.is_finite() {
        metrics.insert(name.to_owned(), value);
    }
}
