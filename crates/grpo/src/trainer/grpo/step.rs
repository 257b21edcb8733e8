//! One step: rollout, rewards, advantages, reference, update.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use embodied_r_random::stream;

use super::GrpoTrainer;
use super::metrics::Times;
use crate::error::Result;
use crate::events::{Event, Metrics, RankShares};
use crate::loss::LossNormalizer;
use crate::model::{FinishReason, Group, Model, Prompt, TokenScores, TrainingPass};
use crate::non_finite::Diagnosis;
use crate::rollout::partition::{GroupPart, completions_per_rank, partition};
use crate::rollout::{self, Rollout};
use crate::settings::RolloutSettings;
use crate::trainer::StepOutput;
use crate::update::micro_batch::{
    MicroBatch, TokenSelection, UpdateStats, loss_normalizers, selection, to_f64,
};
use crate::update::optimizer::StepResult;
use crate::update::packing::{GroupLengths, GroupSlice, pack};
use crate::update::verify::verify_packing;
use crate::update::{StepParams, UpdateOutcome, merged_groups, score_all};

impl<M: Model + 'static> GrpoTrainer<'_, M> {
    /// Runs step `step`, from 0; `None` if the user requested a stop, with all parameters unchanged.
    pub(super) fn grpo_step(&mut self, step: u64) -> Result<Option<StepOutput>> {
        let mut times = Times::default();
        let waited = self.run.process_group.seconds_waited();
        self.take_peak_gb()?;
        let activation_cache = self
            .activation_cache
            .take()
            .or_else(|| Some(self.run.model.activation_cache(self.activation_cache_options?)));
        let Some(mut sampled) = self.sample_groups(step, activation_cache, &mut times)? else {
            return Ok(None);
        };
        times.memory.rollout = self.take_peak_gb()?;
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();

        let advantages = rollout::assign_advantages(
            &mut sampled.rollouts,
            &self.column_weights(step),
            self.settings.rollout.num_generations,
            self.settings.advantages.advantage_estimator,
            self.settings.advantages.scale_rewards,
        );
        let rollouts = &sampled.rollouts;
        self.check_rewards(step, rollouts)?;
        let (mut batches, mini_batches) = self.micro_batches(step, rollouts, &sampled.parts);
        self.run.process_group.enter("reference");
        self.fill_logps(&mut batches)?;
        (times.reference, times.memory.reference) = (lap(), self.take_peak_gb()?);
        let activation_cache = sampled.activation_cache.take();
        let reuses_rollout = activation_cache.is_some();
        self.run.process_group.enter("update");
        self.prefetch(step + 1);
        let updated = self.update(step, &mut batches, &mini_batches, activation_cache)?;
        let Some((iterations, applied)) = updated else { return Ok(None) };
        times.optimizer = self.run.updater.optimizer_s();
        (times.update, times.memory.update) = (lap() - times.optimizer, self.take_peak_gb()?);
        let waited = self.run.process_group.seconds_waited() - waited;
        let ranks = self.rank_shares(&sampled.parts, 1.0 - waited / times.total().max(1e-9))?;

        let mut metrics = Metrics::new();
        self.reward_metrics(rollouts, &advantages, step, &mut metrics);
        if self.settings.rollout.dynamic_sample {
            sampled.resampling_metrics(&mut metrics);
        }
        self.length_metrics(rollouts, &mut metrics);
        self.update_metrics(step, &iterations, applied, &mut metrics);
        let groups = merged_groups(&batches);
        let own_tokens: u64 = groups.iter().map(group_tokens).sum();
        let tokens = self.run.process_group.all_reduce_sum(vec![own_tokens as f64])?[0] as u64;
        times.add_to(tokens, &mut metrics);
        self.mfu_metrics(&groups, reuses_rollout, &times, &mut metrics)?;
        let skipped = match applied.taken {
            true => None,
            false => {
                let kept_iterations = iterations.len() - 1;
                let diagnosis = self.diagnose_skip(step, rollouts, &batches)?;
                Some(Box::new(Diagnosis { kept_iterations, ..diagnosis }))
            }
        };
        Ok(Some(StepOutput { rollouts: sampled.rollouts, metrics, ranks, skipped, tokens }))
    }

    /// Prepares the model for the questions of step `step` that this rank may sample, while another one goes on.
    fn prefetch(&self, step: u64) {
        if step >= self.plan.total_steps {
            return;
        }
        let batch = self.sampler.batch(step);
        let prompts: Vec<&Prompt> =
            batch.into_iter().map(|index| &self.questions[index].prompt).collect();
        self.run.model.prefetch(&prompts);
    }

    /// How the step was shared among the ranks, given this rank's busy share.
    fn rank_shares(&self, parts: &[GroupPart], busy_share: f64) -> Result<RankShares> {
        Ok(RankShares {
            completions_per_rank: completions_per_rank(parts, self.run.process_group.world_size()),
            busy_share_per_rank: self.run.process_group.all_gather(busy_share)?,
        })
    }

    /// This rank's micro-batches, and the range of them that is each mini-batch: the completions it sampled itself if their
    /// activations are cached, else a balanced share of a mini-batch's tokens. With `filter_groups`, without zero-variance
    /// groups.
    fn micro_batches(
        &self,
        step: u64,
        rollouts: &[Rollout],
        sampled: &[GroupPart],
    ) -> (Vec<MicroBatch>, Vec<Range<usize>>) {
        let (weights, estimator) =
            (self.column_weights(step), self.settings.advantages.advantage_estimator);
        let is_used = |group: usize| {
            !self.settings.rollout.filter_groups
                || rollouts[group].has_reward_variance(&weights, estimator)
        };
        // A group that is not used has no completions to share.
        let lengths = rollouts.iter().map(Rollout::lengths).enumerate();
        let lengths: Vec<GroupLengths> = lengths
            .map(|(group, lengths)| if is_used(group) { lengths } else { lengths.part(0..0) })
            .collect();
        let is_own = |part: &GroupPart| part.rank == self.run.process_group.rank();
        let (mut batches, mut mini_batches) = (Vec::new(), Vec::new());
        for groups in mini_batch_groups(lengths.len(), self.settings.rollout.num_mini_batches) {
            let parts = match self.activation_cache_options {
                Some(_) => {
                    let parts = sampled.iter().filter(|part| groups.contains(&part.group));
                    parts.cloned().collect::<Vec<_>>()
                }
                None => partition(&lengths[groups.clone()], self.run.process_group.world_size())
                    .into_iter()
                    .map(|part| GroupPart { group: groups.start + part.group, ..part })
                    .collect(),
            };
            let parts = parts.into_iter().filter(is_own);
            let mut own: Vec<GroupPart> = parts.filter(|part| is_used(part.group)).collect();
            own.sort_by_key(|part| part.group);
            let first = batches.len();
            let packed = self.packed(&own, &lengths);
            batches.extend(packed.iter().map(|slices| self.micro_batch(rollouts, slices)));
            mini_batches.push(first..batches.len());
        }
        (batches, mini_batches)
    }

    /// The parts `own` of groups of these lengths as micro-batches.
    fn packed(&self, own: &[GroupPart], lengths: &[GroupLengths]) -> Vec<Vec<GroupSlice>> {
        let lengths: Vec<GroupLengths> =
            own.iter().map(|part| lengths[part.group].part(part.completions.clone())).collect();
        let mut packed = pack(&lengths, self.settings.run.max_tokens_per_batch);
        for slice in packed.iter_mut().flatten() {
            let GroupPart { group, completions, .. } = &own[slice.group];
            slice.group = *group;
            slice.completions.start += completions.start;
            slice.completions.end += completions.start;
        }
        packed
    }

    fn micro_batch(&self, rollouts: &[Rollout], slices: &[GroupSlice]) -> MicroBatch {
        let completions = slices
            .iter()
            .flat_map(|slice| &rollouts[slice.group].completions[slice.completions.clone()]);
        let masks = self.settings.loss.mask_truncated_completions;
        let sampling = match self.settings.corrects_rollout() {
            true => completions.clone().flat_map(|c| to_f64(&c.logps)).collect(),
            false => Vec::new(),
        };
        MicroBatch {
            groups: slices
                .iter()
                .map(|slice| rollouts[slice.group].group(slice.completions.clone()))
                .collect(),
            unmasked: completions
                .clone()
                .map(|c| !(masks && c.finish == FinishReason::Length))
                .collect(),
            advantages: completions.map(|completion| completion.advantage).collect(),
            sampling,
            ..MicroBatch::default()
        }
    }

    /// Computes the reference log-probabilities if the loss needs them, and the old log-probabilities if the first
    /// iteration's forward pass does not provide them.
    fn fill_logps(&self, batches: &mut [MicroBatch]) -> Result<()> {
        let temperature = self.settings.loss.temperature;
        if let Some(reference) = self.reference.as_ref().filter(|_| self.settings.loss.beta > 0.0) {
            let scores =
                score_all(&*reference.get(), batches, temperature, &self.run.process_group)?;
            for (batch, scores) in batches.iter_mut().zip(scores) {
                batch.reference = to_f64(&scores.logps);
            }
        }
        let RolloutSettings { num_iterations, num_mini_batches, .. } = self.settings.rollout;
        let sampled = self.settings.corrects_rollout();
        // With dropout, the first iteration's forward pass differs from the rollout's; mini-batches after the first are
        // scored by another policy.
        let dropped = num_iterations > 1 && self.settings.trainable().has_dropout();
        if sampled || dropped || num_mini_batches > 1 {
            let scores = score_all(&self.run.model, batches, temperature, &self.run.process_group)?;
            for (batch, scores) in batches.iter_mut().zip(scores) {
                batch.old = to_f64(&scores.logps);
            }
        }
        Ok(())
    }

    /// Runs the optimizer steps, the first with the rollout's activation cache, until one is skipped; returns the
    /// statistics of each and the result of the last.
    fn update(
        &mut self,
        step: u64,
        batches: &mut [MicroBatch],
        mini_batches: &[Range<usize>],
        mut activation_cache: Option<M::ActivationCache>,
    ) -> Result<Option<(Vec<UpdateStats>, StepResult)>> {
        let settings = self.settings.update_loss();
        let longest = self.settings.loss.max_completion_length;
        let iterations = self.settings.rollout.num_iterations;
        let never_stop = std::sync::atomic::AtomicBool::new(false);
        let (mut stats, mut last) = (Vec::new(), None);
        let order = (0..iterations).flat_map(|_| mini_batches);
        for (index, mini_batch) in (0..).zip(order) {
            let batches = &mut batches[mini_batch.clone()];
            let groups: Vec<Arc<[Group]>> =
                batches.iter().map(|batch| batch.groups.clone()).collect();
            let loss_normalizers =
                loss_normalizers(batches, settings.loss_type, longest, &self.run.process_group)?;
            let share = self.settings.loss.top_entropy_quantile;
            let temperature = self.settings.loss.temperature;
            self.run.updater.optimizer.all_gather_weights(&self.run.model, || ())?;
            let selection =
                selection(&self.run.model, batches, temperature, share, &self.run.process_group)?;
            let mut totals = UpdateStats::default();
            // Once the parameters have changed, the step must be finished: it could not be repeated.
            let stop = if index == 0 { self.run.stop } else { &never_stop };
            let params = StepParams {
                temperature: self.settings.loss.temperature,
                learning_rate: self.plan.learning_rate(step, index),
                dropout_seed: stream(&[self.settings.run.seed, step, index]),
            };
            if std::mem::take(&mut self.verify_packing) {
                let training = params.training(activation_cache.as_ref());
                self.verify_packing(step, batches, &loss_normalizers, selection, &training)?;
            }
            let derivative = |index: usize, scores: &TokenScores| {
                let (batch, normalizer) = (&mut batches[index], &loss_normalizers[index]);
                let d = batch.derivative(&settings, normalizer, scores, selection, &mut totals)?;
                // Later iterations need the log-probabilities of the policy that sampled.
                if iterations > 1 && batch.old.is_empty() {
                    batch.old = to_f64(&scores.logps);
                }
                Ok(d)
            };
            let (policy, of_rollout) = (&self.run.model, activation_cache.take());
            let update = self.run.updater.run(
                policy,
                &groups,
                params,
                of_rollout.as_ref(),
                stop,
                derivative,
            )?;
            // With several iterations, the cache is freed to make room for the later ones.
            self.activation_cache = of_rollout.filter(|_| iterations == 1);
            let UpdateOutcome::Done(applied) = update else { return Ok(None) };
            stats.push(UpdateStats::merge_ranks(self.run.process_group.all_gather(totals)?));
            last = Some(applied);
            if !applied.taken {
                break;
            }
        }
        Ok(last.map(|applied| (stats, applied)))
    }
}

impl<M: Model + 'static> GrpoTrainer<'_, M> {
    fn verify_packing(
        &mut self,
        step: u64,
        batches: &[MicroBatch],
        loss_normalizers: &[LossNormalizer],
        selection: TokenSelection,
        training: &TrainingPass<'_, M::ActivationCache>,
    ) -> Result<()> {
        let settings = self.settings.update_loss();
        let found = verify_packing(
            &self.run.model,
            batches,
            &settings,
            loss_normalizers,
            selection,
            training,
        )?;
        self.run.events.notify(&Event::PackingVerified {
            step: step + 1,
            gradient: found.gradient,
            tensor: found.tensor.clone(),
            logp: found.logp,
        })?;
        found.check(self.settings.run.precision)
    }
}

/// The ranges of `groups` groups that are `parts` mini-batches, of equal numbers of groups.
fn mini_batch_groups(groups: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let each = groups / parts.max(1);
    (0..parts).map(move |part| part * each..(part + 1) * each)
}

fn group_tokens(group: &Group) -> u64 {
    (group.prompt.len() + group.completions.iter().map(Vec::len).sum::<usize>()) as u64
}
