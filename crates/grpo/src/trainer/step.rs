//! One step: rollout, rewards, advantages, reference, update.

use std::time::Instant;

use super::Trainer;
use super::figures::{Times, peak_gb};
use super::run::Stepped;
use crate::batches::{Lengths, Piece, pack};
use crate::error::Result;
use crate::events::{Event, Metrics};
use crate::loss::Counts;
use crate::micro_batch::{MicroBatch, Selection, Told, counts, selection, wide};
use crate::model::{Finish, Group, Model, TokenScores, Training};
use crate::optimizer::Applied;
use crate::process;
use crate::random::stream;
use crate::rollout::{self, Rollout};
use crate::update::{Pace, Update, score_all, whole_groups};
use crate::verify::verify;

impl<M: Model + 'static> Trainer<'_, M> {
    /// Step `step`, from 0; `None` if the user wants to stop, with all parameters as before.
    pub(super) fn step(&mut self, step: u64) -> Result<Option<Stepped>> {
        let mut times = Times::default();
        process::reset_peak();
        let tape = self.tape.take().or_else(|| Some(self.policy.tape(self.tape_options?)));
        let Some(mut drawn) = self.draw(step, tape, &mut times)? else { return Ok(None) };
        times.memory.rollout = peak_gb();
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();

        let advantages = rollout::assign_advantages(
            &mut drawn.rollouts,
            &self.column_weights(step),
            self.settings.num_generations,
            self.settings.advantage_estimator,
            self.settings.scale_rewards,
        );
        self.lengths.learn(&drawn.rollouts);
        let rollouts = &drawn.rollouts;
        let mut batches = self.micro_batches(rollouts, &drawn.owners);
        self.team.enter("reference");
        self.refer(&mut batches)?;
        (times.reference, times.memory.reference) = (lap(), peak_gb());
        let tape = drawn.tape.take();
        let taped = tape.is_some();
        self.team.enter("update");
        let Some((told, applied)) = self.update(step, &mut batches, tape)? else { return Ok(None) };
        times.optimizer = self.updater.optimizer_s();
        (times.update, times.memory.update) = (lap() - times.optimizer, peak_gb());

        let mut metrics = Metrics::new();
        self.reward_figures(rollouts, &advantages, step, &mut metrics);
        if self.settings.dynamic_sample {
            drawn.figures(&mut metrics);
        }
        self.length_figures(rollouts, &mut metrics);
        self.update_figures(step, &told, applied, &mut metrics);
        let parts: Vec<_> = batches.iter().map(|batch| batch.groups.clone()).collect();
        let groups = whole_groups(&parts);
        let own_tokens: u64 = groups.iter().map(group_tokens).sum();
        let tokens = self.team.sums(vec![own_tokens as f64])?[0] as u64;
        times.figures(tokens, &mut metrics);
        self.work_figure(&groups, taped, &times, &mut metrics);
        let skipped = match applied.taken {
            true => None,
            false => Some(Box::new(self.left_out(step, rollouts, &batches)?)),
        };
        Ok(Some(Stepped { rollouts: drawn.rollouts, metrics, skipped, tokens }))
    }

    /// This rank's part of the work: what it has sampled itself where a tape holds the half of it, else as many tokens as
    /// any other rank.
    fn micro_batches(&self, rollouts: &[Rollout], owners: &[usize]) -> Vec<MicroBatch> {
        let lengths: Vec<Lengths> = rollouts.iter().map(Rollout::lengths).collect();
        let own: Vec<usize> = match self.tape_options {
            Some(_) => (0..rollouts.len()).filter(|&i| owners[i] == self.team.rank()).collect(),
            None => self.team.share(&lengths.iter().map(Lengths::tokens).collect::<Vec<_>>()),
        };
        let lengths: Vec<Lengths> = own.iter().map(|&index| lengths[index].clone()).collect();
        let mut packed = pack(&lengths, self.settings.max_tokens_per_batch);
        for piece in packed.iter_mut().flatten() {
            piece.group = own[piece.group];
        }
        packed.iter().map(|pieces| self.micro_batch(rollouts, pieces)).collect()
    }

    fn micro_batch(&self, rollouts: &[Rollout], pieces: &[Piece]) -> MicroBatch {
        let completions = pieces
            .iter()
            .flat_map(|piece| &rollouts[piece.group].completions[piece.completions.clone()]);
        let masks = self.settings.mask_truncated_completions;
        let sampling = match self.settings.correction() {
            Some(_) => completions.clone().flat_map(|c| wide(&c.logps)).collect(),
            None => Vec::new(),
        };
        MicroBatch {
            groups: pieces
                .iter()
                .map(|piece| rollouts[piece.group].group(piece.completions.clone()))
                .collect(),
            kept: completions.clone().map(|c| !(masks && c.finish == Finish::Length)).collect(),
            advantages: completions.map(|completion| completion.advantage).collect(),
            sampling,
            ..MicroBatch::default()
        }
    }

    /// Fills in the log-probabilities under the reference, if the loss wants them, and those under the
    /// policy as it is, if the first iteration's forward does not tell them.
    fn refer(&self, batches: &mut [MicroBatch]) -> Result<()> {
        let temperature = self.settings.temperature;
        let groups: Vec<Vec<Group>> = batches.iter().map(|batch| batch.groups.clone()).collect();
        if let Some(reference) = self.reference.as_ref().filter(|_| self.settings.beta > 0.0) {
            let scores = score_all(&*reference.get(), &groups, temperature, &self.team)?;
            for (batch, scores) in batches.iter_mut().zip(scores) {
                batch.reference = wide(&scores.logps);
            }
        }
        let sampled = self.settings.correction().is_some();
        // The first iteration's forward is not the one that sampled where it drops something.
        let dropped = self.settings.num_iterations > 1 && self.settings.trainable().has_dropout();
        if sampled || dropped {
            let scores = score_all(&self.policy, &groups, temperature, &self.team)?;
            for (batch, scores) in batches.iter_mut().zip(scores) {
                batch.old = wide(&scores.logps);
            }
        }
        Ok(())
    }

    /// Takes the optimiser steps, the first with the rollout's tape; gives what it told, and how the last went.
    fn update(
        &mut self,
        step: u64,
        batches: &mut [MicroBatch],
        mut tape: Option<M::Tape>,
    ) -> Result<Option<(Told, Applied)>> {
        let options = self.settings.options();
        let longest = self.settings.max_completion_length;
        let counts = counts(batches, options.loss_type, longest, &self.team)?;
        let iterations = self.settings.num_iterations as u64;
        let groups: Vec<Vec<Group>> = batches.iter().map(|batch| batch.groups.clone()).collect();
        let never = std::sync::atomic::AtomicBool::new(false);
        let mut result = None;
        for iteration in 0..iterations {
            let share = self.settings.top_entropy_quantile;
            let temperature = self.settings.temperature;
            self.updater.optimizer.hand_round(&self.policy, || ())?;
            let selection = selection(&self.policy, batches, temperature, share, &self.team)?;
            let mut told = Told::default();
            // Once the parameters have changed the step must be finished, or it could not be redone.
            let stop = if iteration == 0 { self.stop } else { &never };
            let pace = Pace {
                temperature: self.settings.temperature,
                learning_rate: self.plan.learning_rate(step, iteration),
                noise: stream(&[self.settings.seed, step, iteration]),
            };
            if std::mem::take(&mut self.verify_packing) {
                let training = pace.training(tape.as_ref());
                self.verify(step, batches, &counts, selection, &training)?;
            }
            let derivative = |index: usize, scores: &TokenScores| {
                let (batch, counts) = (&mut batches[index], &counts[index]);
                let d = batch.derivative(&options, counts, scores, selection, &mut told)?;
                // Later iterations compare with the policy that sampled.
                if iterations > 1 && batch.old.is_empty() {
                    batch.old = wide(&scores.logps);
                }
                Ok(d)
            };
            let (policy, of_rollout) = (&self.policy, tape.take());
            let update =
                self.updater.run(policy, &groups, pace, of_rollout.as_ref(), stop, derivative)?;
            // Later iterations have its memory for what they keep.
            self.tape = of_rollout.filter(|_| iterations == 1);
            let Update::Done(applied) = update else { return Ok(None) };
            let told = Told::of_all(self.team.gather(told)?);
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
}

impl<M: Model + 'static> Trainer<'_, M> {
    fn verify(
        &mut self,
        step: u64,
        batches: &[MicroBatch],
        counts: &[Counts],
        selection: Selection,
        training: &Training<'_, M::Tape>,
    ) -> Result<()> {
        let options = self.settings.options();
        let found = verify(&self.policy, batches, &options, counts, selection, training)?;
        self.events.tell(&Event::PackingVerified {
            step: step + 1,
            gradient: found.gradient,
            tensor: found.tensor.clone(),
            logp: found.logp,
        })?;
        found.check(self.settings.precision)
    }
}

fn group_tokens(group: &Group) -> u64 {
    (group.prompt.len() + group.completions.iter().map(Vec::len).sum::<usize>()) as u64
}
