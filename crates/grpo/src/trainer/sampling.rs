//! A step's groups: sampled, scored, and resampled if they have zero variance.

use std::time::Instant;

use embodied_r_rewards::stages::weight;

use super::GrpoTrainer;
use super::metrics::Times;
use crate::error::{Error, Result};
use crate::events::Metrics;
use crate::model::{Model, SamplingParams};
use crate::random::stream;
use crate::rollout::{self, Rollout};
use crate::scoring;

/// The groups of a step, with resampling statistics.
pub(super) struct SampledGroups<T> {
    pub(super) rollouts: Vec<Rollout>,
    /// The rank that sampled each group.
    pub(super) owners: Vec<usize>,
    /// Activations of the first sampling pass, for reuse by the update; resampled groups are not in it.
    pub(super) activation_cache: Option<T>,
    /// Resampling attempts.
    attempts: u64,
    /// Zero-variance groups that were replaced.
    replaced: usize,
}

/// Rollouts, and the activation cache of their sampling.
type SampledRollouts<M> = (Vec<Rollout>, Option<<M as Model>::ActivationCache>);

/// Rollouts of all ranks, the rank that sampled each, and this rank's activation cache.
type ScoredRollouts<M> = (Vec<Rollout>, Vec<usize>, Option<<M as Model>::ActivationCache>);

impl<M: Model + 'static> GrpoTrainer<'_, M> {
    /// Samples and scores the groups of step `step`, from 0; `None` if the user requested a stop.
    ///
    /// With `dynamic_sample`, zero-variance groups are replaced with groups of other questions that have reward
    /// variance, as in ms-swift. Each attempt samples one new question per remaining zero-variance group; after
    /// `max_resample_times` attempts the rest is kept. The activation cache covers the groups sampled first.
    pub(super) fn sample_groups(
        &self,
        step: u64,
        activation_cache: Option<M::ActivationCache>,
        times: &mut Times,
    ) -> Result<Option<SampledGroups<M::ActivationCache>>> {
        let mut sampled = self.sampler.batch(step);
        let scored = self.sample_and_score((step, 0), &sampled, activation_cache, times)?;
        let Some((rollouts, owners, activation_cache)) = scored else { return Ok(None) };
        let mut sampled_groups =
            SampledGroups { rollouts, owners, activation_cache, attempts: 0, replaced: 0 };
        if !self.settings.dynamic_sample {
            return Ok(Some(sampled_groups));
        }
        let (weights, estimator) = (self.column_weights(step), self.settings.advantage_estimator);
        let has_reward_variance =
            |rollout: &Rollout| rollout.has_reward_variance(&weights, estimator);
        let mut zero_variance: Vec<usize> = (0..sampled_groups.rollouts.len())
            .filter(|&i| !has_reward_variance(&sampled_groups.rollouts[i]))
            .collect();
        // Indices are popped from the back, so reverse them to replace the first group first.
        zero_variance.reverse();
        for attempt in 1..=self.settings.max_resample_times {
            let replacements =
                self.sampler.replacements(step, attempt, zero_variance.len(), &sampled);
            if replacements.is_empty() {
                break;
            }
            let candidates = self.sample_and_score((step, attempt), &replacements, None, times)?;
            let Some((candidates, owners, _)) = candidates else { return Ok(None) };
            sampled.extend(replacements);
            sampled_groups.attempts = attempt;
            for (rollout, owner) in candidates.into_iter().zip(owners) {
                if !has_reward_variance(&rollout) {
                    continue;
                }
                let Some(index) = zero_variance.pop() else { break };
                (sampled_groups.rollouts[index], sampled_groups.owners[index]) = (rollout, owner);
                sampled_groups.replaced += 1;
            }
        }
        Ok(Some(sampled_groups))
    }

    /// The reward weights at step `step`, in the order of the scores.
    pub(super) fn column_weights(&self, step: u64) -> Vec<f64> {
        let weights = self.plan.weights(step);
        self.rewards.iter().map(|function| weight(&weights, function.reward.name())).collect()
    }

    /// Samples and scores completions of the questions `indices`, partitioned over ranks, and all-gathers the rollouts.
    fn sample_and_score(
        &self,
        (step, attempt): (u64, u64),
        indices: &[usize],
        activation_cache: Option<M::ActivationCache>,
        times: &mut Times,
    ) -> Result<Option<ScoredRollouts<M>>> {
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();
        self.process_group.enter("rollout");
        let samples = self.settings.num_generations;
        let cost = |&index: &usize| {
            self.questions[index].prompt.len() + self.lengths.tokens(index, samples)
        };
        let owners = self.process_group.assign(&indices.iter().map(cost).collect::<Vec<_>>());
        let is_own = |(_, owner): &(&usize, &usize)| **owner == self.process_group.rank();
        let own = indices.iter().zip(&owners).filter(is_own);
        let own: Vec<usize> = own.map(|(index, _)| *index).collect();
        let (mut rollouts, activation_cache) =
            self.sample((step, attempt), &own, activation_cache)?;
        times.rollout += lap();
        if self.stopping()? {
            return Ok(None);
        }
        self.process_group.enter("rewards");
        scoring::score(
            &mut rollouts,
            &self.rewards,
            &self.plan.weights(step),
            &self.process_group,
        )?;
        let rollouts = merged(&owners, self.process_group.all_gather(rollouts)?)?;
        times.rewards += lap();
        Ok((!self.stopping()?).then_some((rollouts, owners, activation_cache)))
    }

    pub(super) fn sample(
        &self,
        (step, attempt): (u64, u64),
        indices: &[usize],
        activation_cache: Option<M::ActivationCache>,
    ) -> Result<SampledRollouts<M>> {
        let questions: Vec<_> = indices.iter().map(|&i| (i, &self.questions[i])).collect();
        let sampling = SamplingParams {
            temperature: self.settings.temperature,
            top_k: self.settings.top_k,
            top_p: self.settings.top_p,
            max_new_tokens: self.settings.max_completion_length,
            stop_ids: self.tokenizer.stop_ids().to_vec(),
            ..SamplingParams::default()
        };
        // Each attempt has its own random stream.
        let seed = match attempt {
            0 => self.settings.seed,
            attempt => stream(&[self.settings.seed, attempt]),
        };
        rollout::sample(
            (&self.policy, &self.process_group),
            self.tokenizer.as_ref(),
            &questions,
            self.settings.num_generations,
            &sampling,
            (Some(self.settings.rollout_precision()), activation_cache),
            (seed, step),
        )
    }
}

/// Merges the results of all ranks, each in its own order, into the global order.
pub(super) fn merged<T>(owners: &[usize], of_ranks: Vec<Vec<T>>) -> Result<Vec<T>> {
    let mut of_ranks: Vec<_> = of_ranks.into_iter().map(Vec::into_iter).collect();
    let missing = || Error::Model { what: "returned fewer groups than requested".into() };
    let next = |owner: &usize| of_ranks.get_mut(*owner)?.next();
    owners.iter().map(next).collect::<Option<_>>().ok_or_else(missing)
}

impl<T> SampledGroups<T> {
    /// Adds the resampling metrics.
    pub(super) fn resampling_metrics(&self, metrics: &mut Metrics) {
        metrics.insert("dynamic_sample/attempts".into(), self.attempts as f64);
        metrics.insert("dynamic_sample/groups_replaced".into(), self.replaced as f64);
    }
}
