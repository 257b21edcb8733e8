//! One optimiser step over micro-batches, shared by all ways of training.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::loss::Output;
use crate::model::{Group, Model, OnFinal, TokenScores, Training};
use crate::optimizer::{Applied, Optimizer};
use crate::skipped::NonFinite;
use crate::team::Team;

/// Norms of gradients that are remembered for a diagnosis.
const NORMS: usize = 5;

/// What the loss makes of a micro-batch's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Derivative {
    /// The micro-batch's share of the loss.
    pub loss: f64,
    /// The derivative of the step's loss by each log-probability.
    pub dlogps: Vec<f32>,
}

impl From<Output> for Derivative {
    fn from(output: Output) -> Self {
        let dlogps = output.dlogps.into_iter().map(|value| value as f32).collect();
        Self { loss: output.loss, dlogps }
    }
}

/// How an update ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Update {
    /// All micro-batches are done and the optimiser had its turn.
    Done(Applied),
    /// The user wants to stop; the parameters are as before.
    Stopped,
}

/// The numbers of one optimiser step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Temperature of the log-probabilities.
    pub temperature: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// What training leaves to chance in this step follows from it.
    pub noise: u64,
}

impl Pace {
    /// How the step's passes are made, with the `tape` of its rollout if there is one.
    pub fn training<T>(self, tape: Option<&T>) -> Training<'_, T> {
        Training { temperature: self.temperature, noise: self.noise, tape }
    }
}

/// Makes gradients, which exist while a step is made of them, and the optimiser that they go to.
#[derive(Debug)]
pub struct Updater {
    /// The optimiser.
    pub optimizer: Optimizer,
    optimizer_s: f64,
    /// What was not finite in the last step, if it was left out.
    found: NonFinite,
    /// The last norms that were finite, the newest last.
    norms: VecDeque<f64>,
}

impl Updater {
    /// An updater that has taken no step.
    pub fn new(optimizer: Optimizer) -> Self {
        Self { optimizer, found: NonFinite::default(), norms: VecDeque::new(), optimizer_s: 0.0 }
    }

    /// What was not finite in the last step that was left out.
    pub fn found(&self) -> &NonFinite {
        &self.found
    }

    /// The last norms of gradients that were finite, at most five, the newest last.
    pub fn norms(&self) -> Vec<f64> {
        self.norms.iter().copied().collect()
    }

    /// Adds up the gradients of `batches` and takes one step at `pace`, unless the loss, a
    /// log-probability or a gradient is not finite. Between steps their memory is free for other work.
    ///
    /// `derivative` gets a micro-batch's number and scores and gives the loss and its derivative by
    /// each log-probability. `stop` is looked at before every pass over micro-batches. What is on `tape`, of a
    /// rollout with the parameters as they are, need not be computed again.
    ///
    /// # Errors
    /// What the model, `derivative` or the optimiser return.
    pub fn run<M: Model>(
        &mut self,
        model: &M,
        batches: &[Vec<Group>],
        pace: Pace,
        tape: Option<&M::Tape>,
        stop: &AtomicBool,
        mut derivative: impl FnMut(usize, &TokenScores) -> Result<Derivative>,
    ) -> Result<Update> {
        let team = self.optimizer.team().clone();
        // Of several ranks none may stop in the midst of what all of them do.
        let alone = team.size() == 1;
        if !alone && team.any(stop.load(Ordering::Relaxed))? {
            return Ok(Update::Stopped);
        }
        self.optimizer.hand_round(model, || ())?;
        let mut gradients = model.zero_gradients()?;
        let mut found = NonFinite::default();
        let mut checked = |index: usize, scores: &TokenScores| {
            let Derivative { loss, dlogps } = derivative(index, scores)?;
            found.look_at(scores, loss, &dlogps);
            if dlogps.len() == scores.logps.len() {
                return Ok(dlogps);
            }
            let (given, tokens) = (dlogps.len(), scores.logps.len());
            Err(Error::Model {
                what: format!("scored {tokens} tokens where the batch has {given}"),
            })
        };
        let training = pace.training(tape);
        let reduction = self.optimizer.reduction(model, &gradients)?;
        for pass in passes(batches) {
            if alone && stop.load(Ordering::Relaxed) {
                return Ok(Update::Stopped);
            }
            team.beat();
            // Later passes add to all gradients.
            let is_last = pass.end == batches.len();
            let on_final = &mut |from: usize| {
                if is_last {
                    reduction.final_from(from)
                }
            };
            backward(model, batches, pass, &training, &mut gradients, &mut checked, on_final)?;
        }
        let began = Instant::now();
        let summed = reduction.finish(&gradients)?;
        let applied = match team.any(found.found())? {
            true => Applied { grad_norm: summed.norm(), taken: false },
            false => self.optimizer.step(model, &summed, pace.learning_rate)?,
        };
        self.optimizer_s = began.elapsed().as_secs_f64();
        if applied.taken {
            self.norms.push_back(applied.grad_norm);
            self.norms.drain(..self.norms.len().saturating_sub(NORMS));
        } else {
            drop(summed);
            found.name_gradients(model, &gradients)?;
            self.found = NonFinite::of_all(team.gather(found)?);
        }
        Ok(Update::Done(applied))
    }

    /// Seconds that the optimiser took for its last step.
    pub fn optimizer_s(&self) -> f64 {
        self.optimizer_s
    }
}

/// Micro-batches that go through the model at once: one, or all parts of one group.
///
/// Parts are recognised by what makes them so: neighbours of a single group each, with the same prompt.
pub(crate) fn passes(batches: &[Vec<Group>]) -> Vec<Range<usize>> {
    let mut passes: Vec<Range<usize>> = Vec::new();
    for (index, groups) in batches.iter().enumerate() {
        let before = passes.last_mut().filter(|pass| {
            let (first, this) = (batches[pass.start].as_slice(), groups.as_slice());
            matches!((first, this), ([a], [b]) if a.prompt == b.prompt)
        });
        match before {
            Some(pass) => pass.end = index + 1,
            None => passes.push(index..index + 1),
        }
    }
    passes
}

/// The groups of all micro-batches, the parts of one as one: so often is its prompt computed.
pub fn whole_groups(batches: &[Vec<Group>]) -> Vec<Group> {
    let whole = |pass: Range<usize>| match &batches[pass] {
        [groups] => groups.clone(),
        split => {
            let (prompt, parts) = parts(split);
            vec![Group { prompt: prompt.to_vec(), completions: parts.concat() }]
        }
    };
    passes(batches).into_iter().flat_map(whole).collect()
}

/// The completions of each part of a group.
fn parts(batches: &[Vec<Group>]) -> (&[u32], Vec<Vec<Vec<u32>>>) {
    let groups = || batches.iter().flatten();
    let prompt = groups().next().map_or(&[][..], |group| &group.prompt);
    (prompt, groups().map(|group| group.completions.clone()).collect())
}

/// Adds the gradients of some micro-batches that go through the model at once; `on_final` is told what they leave as it is
/// then.
///
/// # Errors
/// What the model and `derivative` return.
pub(crate) fn backward<M: Model>(
    model: &M,
    batches: &[Vec<Group>],
    pass: Range<usize>,
    training: &Training<'_, M::Tape>,
    gradients: &mut M::Gradients,
    derivative: &mut dyn FnMut(usize, &TokenScores) -> Result<Vec<f32>>,
    on_final: &mut OnFinal<'_>,
) -> Result<()> {
    let first = pass.start;
    if pass.len() == 1 {
        let derivative = &mut |scores: &TokenScores| derivative(first, scores);
        return model.backward(&batches[first], training, gradients, derivative, on_final);
    }
    let (prompt, parts) = parts(&batches[pass]);
    let derivative = &mut |part: usize, scores: &TokenScores| derivative(first + part, scores);
    model.backward_parts(prompt, &parts, training, gradients, derivative, on_final)
}

/// The scores of all micro-batches, each prompt computed once. Each pass is a sign of life to `team`.
///
/// # Errors
/// What the model returns.
pub fn score_all<M: Model>(
    model: &M,
    batches: &[Vec<Group>],
    temperature: f64,
    team: &Team,
) -> Result<Vec<TokenScores>> {
    let mut scores = Vec::with_capacity(batches.len());
    for pass in passes(batches) {
        team.beat();
        if pass.len() == 1 {
            scores.push(model.score(&batches[pass.start], temperature)?);
            continue;
        }
        let (prompt, parts) = parts(&batches[pass]);
        scores.extend(model.score_parts(prompt, &parts, temperature)?);
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use embodied_r_dist::{Communicator, Operation, Options};

    use super::*;
    use crate::model::toy::Bigram;
    use crate::optimizer::{Optim, OptimizerSettings};

    #[test]
    fn no_gradient_is_sent_while_a_later_pass_will_add_to_it() {
        let settings = OptimizerSettings {
            optim: Optim::Adamw,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        };
        let rank = |communicator: Communicator| {
            let sent = || {
                let traffic = communicator.traffic();
                traffic.get(&Operation::ReduceScatter).map_or(0, |traffic| traffic.calls)
            };
            let model = Bigram::new(5, 1);
            let team = Team::new(communicator.clone());
            let mut updater = Updater::new(Optimizer::new(settings, &model, &team).unwrap());
            let group =
                |prompt: u32| vec![Group { prompt: vec![prompt], completions: vec![vec![2]] }];
            let batches = [group(1), group(3), group(4)];
            let pace = Pace { temperature: 1.0, learning_rate: 0.1, noise: 0 };
            let mut early = Vec::new();
            let derivative = |_: usize, scores: &TokenScores| {
                // Long enough for whatever is on its way by mistake.
                std::thread::sleep(Duration::from_millis(100));
                early.push(sent());
                Ok(Derivative { loss: 0.0, dlogps: vec![1.0; scores.logps.len()] })
            };
            let stop = AtomicBool::new(false);
            updater.run(&model, &batches, pace, None, &stop, derivative).unwrap();
            communicator.finish().unwrap();
            (early, sent())
        };
        let communicators = Communicator::threads(2, &Options::default()).unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                communicators.into_iter().map(|one| scope.spawn(move || rank(one))).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), (vec![0, 0, 0], 2));
            }
        });
    }

    #[test]
    fn only_neighbours_that_are_parts_of_one_group_go_together() {
        let group = |prompt: u32| Group { prompt: vec![prompt], completions: vec![vec![9]] };
        let batches = [
            vec![group(1)],
            vec![group(1)],
            vec![group(1), group(2)],
            vec![group(2)],
            vec![group(2)],
            vec![group(3)],
        ];
        assert_eq!(passes(&batches), [0..2, 2..3, 3..5, 5..6]);
    }

    #[test]
    fn the_parts_of_a_group_have_one_prompt_between_them() {
        let group = |prompt: u32, completion: u32| Group {
            prompt: vec![prompt],
            completions: vec![vec![completion]],
        };
        let batches = [vec![group(1, 7)], vec![group(1, 8)], vec![group(1, 9), group(2, 9)]];
        let whole: Vec<(Vec<u32>, Vec<Vec<u32>>)> = whole_groups(&batches)
            .into_iter()
            .map(|group| (group.prompt, group.completions))
            .collect();
        let expected =
            [(vec![1], vec![vec![7], vec![8]]), (vec![1], vec![vec![9]]), (vec![2], vec![vec![9]])];
        assert_eq!(whole, expected);
    }
}
