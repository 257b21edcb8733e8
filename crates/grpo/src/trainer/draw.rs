//! A step's groups: sampled and scored, and sampled again where they teach nothing.

use std::time::Instant;

use embodied_r_rewards::stages::weight;

use super::Trainer;
use super::figures::Times;
use crate::error::{Error, Result};
use crate::events::Metrics;
use crate::model::{Model, Sampling};
use crate::random::stream;
use crate::rollout::{self, Rollout};
use crate::scoring;

/// The groups of a step, and what it took to find them.
pub(super) struct Drawn<T> {
    pub(super) rollouts: Vec<Rollout>,
    /// The rank that sampled each.
    pub(super) owners: Vec<usize>,
    /// What the sampling of the first groups has computed for the update; others took the places of some.
    pub(super) tape: Option<T>,
    /// How often other questions were tried.
    attempts: u64,
    /// Groups without spread that gave way to others.
    replaced: usize,
}

/// Groups with their completions, and the tape of their sampling.
type Sampled<M> = (Vec<Rollout>, Option<<M as Model>::Tape>);

/// Groups of all ranks, who sampled each, and the tape of this rank's sampling.
type Scored<M> = (Vec<Rollout>, Vec<usize>, Option<<M as Model>::Tape>);

impl<M: Model + 'static> Trainer<'_, M> {
    /// The groups of step `step`, from 0, with their rewards; `None` if the user wants to stop.
    ///
    /// With `dynamic_sample` a group whose rewards are all equal gives way to one of another
    /// question whose rewards are not, as ms-swift does. Only as many questions are tried as there
    /// are places left; after `max_resample_times` attempts the rest stays as it is. The tape is of the
    /// groups that were drawn first.
    pub(super) fn draw(
        &self,
        step: u64,
        tape: Option<M::Tape>,
        times: &mut Times,
    ) -> Result<Option<Drawn<M::Tape>>> {
        let mut asked = self.sampler.batch(step);
        let scored = self.scored((step, 0), &asked, tape, times)?;
        let Some((rollouts, owners, tape)) = scored else { return Ok(None) };
        let mut drawn = Drawn { rollouts, owners, tape, attempts: 0, replaced: 0 };
        if !self.settings.dynamic_sample {
            return Ok(Some(drawn));
        }
        let (weights, estimator) = (self.column_weights(step), self.settings.advantage_estimator);
        let has_spread = |rollout: &Rollout| rollout.has_spread(&weights, estimator);
        let mut flat: Vec<usize> =
            (0..drawn.rollouts.len()).filter(|&i| !has_spread(&drawn.rollouts[i])).collect();
        // Places are filled from the back, so that the last one is the next.
        flat.reverse();
        for attempt in 1..=self.settings.max_resample_times {
            let others = self.sampler.others(step, attempt, flat.len(), &asked);
            if others.is_empty() {
                break;
            }
            let found = self.scored((step, attempt), &others, None, times)?;
            let Some((found, owners, _)) = found else { return Ok(None) };
            asked.extend(others);
            drawn.attempts = attempt;
            for (rollout, owner) in found.into_iter().zip(owners) {
                if !has_spread(&rollout) {
                    continue;
                }
                let Some(place) = flat.pop() else { break };
                (drawn.rollouts[place], drawn.owners[place]) = (rollout, owner);
                drawn.replaced += 1;
            }
        }
        Ok(Some(drawn))
    }

    /// The weights of the scores at step `step`, in their order.
    pub(super) fn column_weights(&self, step: u64) -> Vec<f64> {
        let weights = self.plan.weights(step);
        self.rewards.iter().map(|asked| weight(&weights, asked.reward.name())).collect()
    }

    /// Samples completions of the questions `indices` and scores them, each rank its share; then all have all of them.
    fn scored(
        &self,
        (step, attempt): (u64, u64),
        indices: &[usize],
        tape: Option<M::Tape>,
        times: &mut Times,
    ) -> Result<Option<Scored<M>>> {
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();
        self.team.enter("rollout");
        let samples = self.settings.num_generations;
        let cost = |&index: &usize| {
            self.questions[index].prompt.len() + self.lengths.tokens(index, samples)
        };
        let owners = self.team.deal(&indices.iter().map(cost).collect::<Vec<_>>());
        let is_own = |(_, owner): &(&usize, &usize)| **owner == self.team.rank();
        let own = indices.iter().zip(&owners).filter(is_own);
        let own: Vec<usize> = own.map(|(index, _)| *index).collect();
        let (mut rollouts, tape) = self.sample((step, attempt), &own, tape)?;
        times.rollout += lap();
        if self.stopping()? {
            return Ok(None);
        }
        self.team.enter("rewards");
        {
            // Programs and services that score have time limits of their own.
            let _vigil = self.team.communicator().vigil();
            scoring::score(&mut rollouts, &self.rewards, &self.plan.weights(step))?;
        }
        let rollouts = merged(&owners, self.team.gather(rollouts)?)?;
        times.rewards += lap();
        Ok((!self.stopping()?).then_some((rollouts, owners, tape)))
    }

    pub(super) fn sample(
        &self,
        (step, attempt): (u64, u64),
        indices: &[usize],
        tape: Option<M::Tape>,
    ) -> Result<Sampled<M>> {
        let questions: Vec<_> = indices.iter().map(|&i| (i, &self.questions[i])).collect();
        let sampling = Sampling {
            temperature: self.settings.temperature,
            top_k: self.settings.top_k,
            top_p: self.settings.top_p,
            max_new_tokens: self.settings.max_completion_length,
            stop_ids: self.text.stop_ids().to_vec(),
            ..Sampling::default()
        };
        // Every attempt has random numbers of its own.
        let seed = match attempt {
            0 => self.settings.seed,
            again => stream(&[self.settings.seed, again]),
        };
        rollout::sample(
            (&self.policy, &self.team),
            self.text.as_ref(),
            &questions,
            self.settings.num_generations,
            &sampling,
            (Some(self.settings.rollout_precision()), tape),
            (seed, step),
        )
    }
}

/// What the ranks gave, each in its order, in the order of all.
pub(super) fn merged<T>(owners: &[usize], of_ranks: Vec<Vec<T>>) -> Result<Vec<T>> {
    let mut of_ranks: Vec<_> = of_ranks.into_iter().map(Vec::into_iter).collect();
    let missing = || Error::Model { what: "gave fewer groups than were asked for".into() };
    let next = |owner: &usize| of_ranks.get_mut(*owner)?.next();
    owners.iter().map(next).collect::<Option<_>>().ok_or_else(missing)
}

impl<T> Drawn<T> {
    /// How often other questions were tried, and what it brought.
    pub(super) fn figures(&self, metrics: &mut Metrics) {
        metrics.insert("dynamic_sample/attempts".into(), self.attempts as f64);
        metrics.insert("dynamic_sample/groups_replaced".into(), self.replaced as f64);
    }
}
