//! One step: rollout, rewards, advantages, reference, update.

use std::time::Instant;

use super::Trainer;
use super::run::Stepped;
use crate::batches::{Lengths, Piece, pack};
use crate::error::Result;
use crate::events::Metrics;
use crate::loss::{self, Batch, Counts, LossType, Stats};
use crate::model::{Finish, Group, Model, TokenScores};
use crate::optimizer::Applied;
use crate::rollout::{self, Rollout};
use crate::update::Update;

/// A micro-batch and what the loss needs to know of it.
pub(super) struct MicroBatch {
    pub(super) groups: Vec<Group>,
    lengths: Vec<usize>,
    kept: Vec<bool>,
    advantages: Vec<f64>,
    /// Log-probabilities under the reference; empty without one.
    pub(super) reference: Vec<f64>,
    /// Log-probabilities at the first of several iterations; empty before.
    pub(super) old: Vec<f64>,
}

/// What the update's forwards told, summed over the micro-batches of an iteration.
#[derive(Default)]
pub(super) struct Told {
    pub(super) loss: f64,
    pub(super) stats: Stats,
    pub(super) entropy: f64,
    pub(super) tokens: f64,
}

/// Seconds of each phase.
#[derive(Default)]
pub(super) struct Times {
    pub(super) rollout: f64,
    pub(super) rewards: f64,
    pub(super) reference: f64,
    pub(super) update: f64,
}

impl<M: Model + 'static> Trainer<'_, M> {
    /// Step `step`, from 0; `None` if the user wants to stop, with all parameters as before.
    pub(super) fn step(&mut self, step: u64) -> Result<Option<Stepped>> {
        let mut times = Times::default();
        let Some(mut drawn) = self.draw(step, &mut times)? else { return Ok(None) };
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();

        let advantages = rollout::assign_advantages(
            &mut drawn.rollouts,
            self.settings.num_generations,
            self.settings.scale_rewards,
        );
        let rollouts = &drawn.rollouts;
        let mut batches = self.micro_batches(rollouts);
        self.refer(&mut batches)?;
        times.reference = lap();
        let Some((told, applied)) = self.update(step, &mut batches)? else { return Ok(None) };
        times.update = lap();

        let mut metrics = Metrics::new();
        self.reward_figures(rollouts, &advantages, step, &mut metrics);
        if self.settings.dynamic_sample {
            drawn.figures(&mut metrics);
        }
        self.length_figures(rollouts, &mut metrics);
        self.update_figures(step, &told, applied, &mut metrics);
        let tokens = batches.iter().flat_map(|batch| &batch.groups).map(group_tokens).sum();
        times.figures(tokens, &mut metrics);
        let skipped = match applied.taken {
            true => None,
            false => Some(self.dump(step, &batches)?),
        };
        Ok(Some(Stepped { rollouts: drawn.rollouts, metrics, skipped, tokens }))
    }

    fn micro_batches(&self, rollouts: &[Rollout]) -> Vec<MicroBatch> {
        let lengths: Vec<Lengths> = rollouts.iter().map(Rollout::lengths).collect();
        let packed = pack(&lengths, self.settings.max_tokens_per_batch);
        packed.iter().map(|pieces| self.micro_batch(rollouts, pieces)).collect()
    }

    fn micro_batch(&self, rollouts: &[Rollout], pieces: &[Piece]) -> MicroBatch {
        let completions = pieces
            .iter()
            .flat_map(|piece| &rollouts[piece.group].completions[piece.completions.clone()]);
        let masks = self.settings.mask_truncated_completions;
        MicroBatch {
            groups: pieces
                .iter()
                .map(|piece| rollouts[piece.group].group(piece.completions.clone()))
                .collect(),
            lengths: completions.clone().map(|completion| completion.ids.len()).collect(),
            kept: completions.clone().map(|c| !(masks && c.finish == Finish::Length)).collect(),
            advantages: completions.map(|completion| completion.advantage).collect(),
            reference: Vec::new(),
            old: Vec::new(),
        }
    }

    /// Fills in the log-probabilities under the reference, if the loss wants them.
    fn refer(&self, batches: &mut [MicroBatch]) -> Result<()> {
        let Some(reference) = self.reference.as_ref().filter(|_| self.settings.beta > 0.0) else {
            return Ok(());
        };
        let model = reference.get();
        for batch in batches {
            let scores = model.score(&batch.groups, self.settings.temperature)?;
            batch.reference = scores.logps.into_iter().map(f64::from).collect();
        }
        Ok(())
    }

    /// Takes the optimiser steps; gives what the first told, and how the last went.
    fn update(&mut self, step: u64, batches: &mut [MicroBatch]) -> Result<Option<(Told, Applied)>> {
        let options = self.settings.options();
        let counts = self.counts(batches);
        let iterations = self.settings.num_iterations as u64;
        let groups: Vec<Vec<Group>> = batches.iter().map(|batch| batch.groups.clone()).collect();
        let never = std::sync::atomic::AtomicBool::new(false);
        let mut result = None;
        for iteration in 0..iterations {
            let mut told = Told::default();
            // Once the parameters have changed the step must be finished, or it could not be redone.
            let stop = if iteration == 0 { self.stop } else { &never };
            let lr = self.plan.learning_rate(step, iteration);
            let update = self.updater.run(
                &self.policy,
                &groups,
                self.settings.temperature,
                lr,
                stop,
                |index, scores| {
                    let batch = &mut batches[index];
                    let counts = counts[index];
                    Ok(batch.derivative(&options, &counts, scores, &mut told, iterations > 1))
                },
            )?;
            let Update::Done(applied) = update else { return Ok(None) };
            if !applied.taken {
                return Ok(Some((told, applied)));
            }
            result = Some(match result {
                None => (told, applied),
                Some((first, _)) => (first, applied),
            });
        }
        Ok(result)
    }

    /// What each micro-batch's loss is divided by: the counts of the whole step, but for `bnpo`,
    /// which takes the mean over micro-batches as TRL does.
    fn counts(&self, batches: &[MicroBatch]) -> Vec<Counts> {
        let sequences = batches.iter().map(|batch| batch.lengths.len()).sum::<usize>() as f64;
        let tokens: f64 = batches.iter().map(MicroBatch::kept_tokens).sum();
        let by_batch = self.settings.loss_type == LossType::Bnpo;
        batches
            .iter()
            .map(|batch| Counts {
                sequences,
                tokens: match by_batch {
                    true => batch.kept_tokens().max(1.0) * batches.len() as f64,
                    false => tokens,
                },
                max_completion_length: self.settings.max_completion_length as f64,
            })
            .collect()
    }
}

impl MicroBatch {
    fn kept_tokens(&self) -> f64 {
        let kept = self.lengths.iter().zip(&self.kept).filter(|(_, kept)| **kept);
        kept.map(|(length, _)| *length as f64).sum()
    }

    /// The sum of one value a token over the completions that count.
    fn kept_sum(&self, values: &[f32]) -> f64 {
        let mut values = values.iter().copied().map(f64::from);
        let lengths = self.lengths.iter().zip(&self.kept);
        let sum = |(length, kept): (&usize, &bool)| {
            let sum: f64 = values.by_ref().take(*length).sum();
            if *kept { sum } else { 0.0 }
        };
        lengths.map(sum).sum()
    }

    /// The completions' lengths and advantages, in order.
    pub(super) fn completions(&self) -> impl Iterator<Item = (usize, f64)> {
        self.lengths.iter().copied().zip(self.advantages.iter().copied())
    }

    fn derivative(
        &mut self,
        options: &loss::Options,
        counts: &Counts,
        scores: &TokenScores,
        told: &mut Told,
        remember: bool,
    ) -> Vec<f32> {
        let logps: Vec<f64> = scores.logps.iter().copied().map(f64::from).collect();
        let given = |values: &'_ [f64]| !values.is_empty();
        let output = loss::loss(
            options,
            &Batch {
                logps: &logps,
                old: Some(self.old.as_slice()).filter(|old| given(old)),
                reference: Some(self.reference.as_slice()).filter(|reference| given(reference)),
                lengths: &self.lengths,
                kept: &self.kept,
                advantages: &self.advantages,
            },
            counts,
        );
        told.loss += output.loss;
        told.stats.merge(&output.stats);
        told.entropy += self.kept_sum(&scores.entropies);
        told.tokens += self.kept_tokens();
        if remember && self.old.is_empty() {
            self.old = logps;
        }
        output.dlogps.into_iter().map(|value| value as f32).collect()
    }
}

fn group_tokens(group: &Group) -> u64 {
    (group.prompt.len() + group.completions.iter().map(Vec::len).sum::<usize>()) as u64
}
