//! A step's groups: sampled, scored, and resampled if they have zero variance.

use std::ops::Range;
use std::time::Instant;

use embodied_r_random::stream;
use embodied_r_rewards::stages::weight;

use super::GrpoTrainer;
use super::metrics::Times;
use crate::error::{Error, Result};
use crate::events::Metrics;
use crate::model::{GenerateOptions, Model, SamplingParams};
use crate::rewards::scoring;
use crate::rollout::partition::{GroupPart, partition};
use crate::rollout::{Rollout, SampleRequest, Sampler};
use crate::update::packing::GroupLengths;

/// The groups of a step, with resampling statistics.
pub(super) struct SampledGroups<T> {
    pub(super) rollouts: Vec<Rollout>,
    /// The ranks that sampled their parts, in no particular order.
    pub(super) parts: Vec<GroupPart>,
    /// Activations of the first sampling pass, for reuse by the update; resampled groups are not in it.
    pub(super) activation_cache: Option<T>,
    /// Resampling attempts.
    attempts: u64,
    /// Zero-variance groups that were replaced.
    replaced: usize,
}

/// Rollouts, and the activation cache of their sampling.
type SampledRollouts<M> = (Vec<Rollout>, Option<<M as Model>::ActivationCache>);

/// Rollouts of all ranks, the ranks that sampled their parts, and this rank's activation cache.
type ScoredRollouts<M> = (Vec<Rollout>, Vec<GroupPart>, Option<<M as Model>::ActivationCache>);

/// A step's sampling, or one of its resampling attempts, which are counted from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    pub(super) step: u64,
    pub(super) attempt: u64,
}

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
        let scored =
            self.sample_and_score(Draw { step, attempt: 0 }, &sampled, activation_cache, times)?;
        let Some((rollouts, parts, activation_cache)) = scored else { return Ok(None) };
        let mut sampled_groups =
            SampledGroups { rollouts, parts, activation_cache, attempts: 0, replaced: 0 };
        if !self.settings.rollout.dynamic_sample {
            return Ok(Some(sampled_groups));
        }
        let (weights, estimator) =
            (self.column_weights(step), self.settings.advantages.advantage_estimator);
        let has_reward_variance =
            |rollout: &Rollout| rollout.has_reward_variance(&weights, estimator);
        let mut zero_variance: Vec<usize> = (0..sampled_groups.rollouts.len())
            .filter(|&i| !has_reward_variance(&sampled_groups.rollouts[i]))
            .collect();
        // Indices are popped from the back, so reverse them to replace the first group first.
        zero_variance.reverse();
        for attempt in 1..=self.settings.rollout.max_resample_times {
            let replacements =
                self.sampler.replacements(step, attempt, zero_variance.len(), &sampled);
            if replacements.is_empty() {
                break;
            }
            let candidates =
                self.sample_and_score(Draw { step, attempt }, &replacements, None, times)?;
            let Some((candidates, parts, _)) = candidates else { return Ok(None) };
            sampled.extend(replacements);
            sampled_groups.attempts = attempt;
            for (candidate, rollout) in candidates.into_iter().enumerate() {
                if !has_reward_variance(&rollout) {
                    continue;
                }
                let Some(index) = zero_variance.pop() else { break };
                let parts = parts.iter().filter(|part| part.group == candidate);
                sampled_groups.replace(index, rollout, parts);
            }
        }
        Ok(Some(sampled_groups))
    }

    /// The reward weights at step `step`, in the order of the scores.
    pub(super) fn column_weights(&self, step: u64) -> Vec<f64> {
        let weights = self.plan.weights(step);
        self.rewards.iter().map(|function| weight(&weights, function.reward.name())).collect()
    }

    /// Samples and scores groups of the questions `indices`, partitioned over ranks, and all-gathers the rollouts.
    fn sample_and_score(
        &self,
        draw: Draw,
        indices: &[usize],
        activation_cache: Option<M::ActivationCache>,
        times: &mut Times,
    ) -> Result<Option<ScoredRollouts<M>>> {
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();
        self.run.process_group.enter("rollout");
        let longest = self.settings.loss.max_completion_length;
        let expected = |&index: &usize| {
            let tokens = self.run.state.expected_lengths.tokens(index, longest);
            GroupLengths {
                prompt: self.questions[index].prompt.len(),
                completions: vec![tokens; self.settings.rollout.num_generations],
            }
        };
        let expected: Vec<GroupLengths> = indices.iter().map(expected).collect();
        let parts = partition(&expected, self.run.process_group.world_size());
        let own = parts.iter().filter(|part| part.rank == self.run.process_group.rank());
        let wanted: Vec<_> =
            own.map(|part| self.request(indices[part.group], part.completions.clone())).collect();
        let (mut rollouts, activation_cache) = self.sample(draw, &wanted, activation_cache)?;
        times.rollout += lap();
        if self.run.stopping()? {
            return Ok(None);
        }
        self.run.process_group.enter("rewards");
        scoring::score(
            &mut rollouts,
            &self.questions,
            &self.rewards,
            &self.plan.weights(draw.step),
            &self.run.process_group,
            self.run.stop,
        )?;
        // After an interrupted wait, all ranks learn below that one of them is to stop.
        let rollouts = joined(&parts, self.run.process_group.all_gather(rollouts)?)?;
        times.rewards += lap();
        Ok((!self.run.stopping()?).then_some((rollouts, parts, activation_cache)))
    }

    pub(super) fn request(&self, index: usize, completions: Range<usize>) -> SampleRequest<'_> {
        SampleRequest { index, prompted: &self.questions[index], completions }
    }

    pub(super) fn sample(
        &self,
        draw: Draw,
        wanted: &[SampleRequest<'_>],
        activation_cache: Option<M::ActivationCache>,
    ) -> Result<SampledRollouts<M>> {
        let params = SamplingParams {
            temperature: self.settings.loss.temperature,
            max_new_tokens: self.settings.loss.max_completion_length,
            stop_ids: self.run.tokenizer.stop_ids().to_vec(),
            ..SamplingParams::default()
        };
        let params = self.settings.rollout.sampling().applied_to(params);
        // Each attempt has its own random stream.
        let seed = match draw.attempt {
            0 => self.settings.run.seed,
            attempt => stream(&[self.settings.run.seed, attempt]),
        };
        let sampler = Sampler {
            model: &self.run.model,
            process_group: &self.run.process_group,
            tokenizer: self.run.tokenizer.as_ref(),
            params,
            seed,
            step: draw.step,
        };
        let precision = Some(self.settings.rollout_precision());
        sampler.sample(wanted, GenerateOptions { precision, activation_cache })
    }
}

/// Merges the results of all ranks, each in its own order, into the global order.
pub(super) fn merged<T>(owners: &[usize], of_ranks: Vec<Vec<T>>) -> Result<Vec<T>> {
    let mut of_ranks: Vec<_> = of_ranks.into_iter().map(Vec::into_iter).collect();
    let missing = || Error::Model { what: "returned fewer groups than requested".into() };
    let next = |owner: &usize| of_ranks.get_mut(*owner)?.next();
    owners.iter().map(next).collect::<Option<_>>().ok_or_else(missing)
}

/// Joins the parts of all ranks, each rank's in the order of `parts`, to whole groups.
fn joined(parts: &[GroupPart], of_ranks: Vec<Vec<Rollout>>) -> Result<Vec<Rollout>> {
    let ranks: Vec<usize> = parts.iter().map(|part| part.rank).collect();
    let mut rollouts: Vec<Rollout> = Vec::new();
    for (part, rollout) in parts.iter().zip(merged(&ranks, of_ranks)?) {
        match rollouts.get_mut(part.group) {
            Some(group) => group.completions.extend(rollout.completions),
            None => rollouts.push(rollout),
        }
    }
    Ok(rollouts)
}

impl<T> SampledGroups<T> {
    /// Replaces the group at `index` with another, which these parts make up.
    fn replace<'p>(
        &mut self,
        index: usize,
        rollout: Rollout,
        parts: impl Iterator<Item = &'p GroupPart>,
    ) {
        self.parts.retain(|part| part.group != index);
        self.parts.extend(parts.map(|part| GroupPart { group: index, ..part.clone() }));
        self.rollouts[index] = rollout;
        self.replaced += 1;
    }

    /// Adds the resampling metrics.
    pub(super) fn resampling_metrics(&self, metrics: &mut Metrics) {
        metrics.insert("dynamic_sample/attempts".into(), self.attempts as f64);
        metrics.insert("dynamic_sample/groups_replaced".into(), self.replaced as f64);
    }
}
