//! One optimizer step over micro-batches, shared by all trainers.

pub mod micro_batch;
pub mod optimizer;
pub mod packing;
pub mod packing_check;
pub mod supervised;
pub mod verify;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::checkpoint::finite::is_finite;
use crate::error::{Error, Result};
use crate::loss::LossOutput;
use crate::model::{
    GradientReadyHook, Group, Model, NamedGradients as _, Prompt, TokenScores, TrainingPass,
};
use crate::non_finite::NonFinite;
use crate::update::optimizer::{Optimizer, StepResult};
use embodied_r_dist::ProcessGroup;

/// Gradient norms kept for a diagnosis.
const NORMS: usize = 5;

/// A micro-batch's loss and its derivative.
#[derive(Debug, Clone, PartialEq)]
pub struct LossGradient {
    /// The micro-batch's share of the step's loss.
    pub loss: f64,
    /// Derivative of the step's loss by each log-probability.
    pub dlogps: Vec<f32>,
}

impl From<LossOutput> for LossGradient {
    fn from(output: LossOutput) -> Self {
        let dlogps = output.dlogps.into_iter().map(|value| value as f32).collect();
        Self { loss: output.loss, dlogps }
    }
}

/// The outcome of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UpdateOutcome {
    /// All micro-batches are done and the optimizer has run.
    Done(StepResult),
    /// A stop was requested; the parameters are unchanged.
    Stopped,
}

/// Parameters of one optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepParams {
    /// Temperature of the log-probabilities.
    pub temperature: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Seed of the step's dropout masks.
    pub dropout_seed: u64,
}

impl StepParams {
    /// The options of the step's forward and backward passes, with the rollout's activation cache if there is one.
    pub fn training<T>(self, activation_cache: Option<&T>) -> TrainingPass<'_, T> {
        TrainingPass {
            temperature: self.temperature,
            dropout_seed: self.dropout_seed,
            activation_cache,
        }
    }
}

/// Accumulates gradients and applies them with its optimizer. Gradients are only allocated during a step.
#[derive(Debug)]
pub struct Updater {
    /// The optimizer.
    pub optimizer: Optimizer,
    optimizer_s: f64,
    /// What was non-finite in the last step, if it was skipped.
    non_finite: NonFinite,
    /// The last finite gradient norms, newest last.
    grad_norms: VecDeque<f64>,
}

impl Updater {
    /// An updater before its first step.
    pub fn new(optimizer: Optimizer) -> Self {
        Self {
            optimizer,
            non_finite: NonFinite::default(),
            grad_norms: VecDeque::new(),
            optimizer_s: 0.0,
        }
    }

    /// What was non-finite in the last skipped step.
    pub fn non_finite(&self) -> &NonFinite {
        &self.non_finite
    }

    /// The last finite gradient norms, at most five, newest last.
    pub fn grad_norms(&self) -> Vec<f64> {
        self.grad_norms.iter().copied().collect()
    }

    /// Accumulates the gradients of `batches` and takes one optimizer step with `params`; the step is skipped if the
    /// loss, a log-probability or a gradient is non-finite. Gradient memory is released afterwards.
    ///
    /// `derivative` maps a micro-batch's index and scores to its loss and the derivative by each log-probability.
    /// `stop` is checked before every forward pass. Activations in `activation_cache`, from a rollout with the current
    /// parameters, are reused.
    ///
    /// # Errors
    /// The model, `derivative` or the optimizer fails.
    pub fn run<M: Model>(
        &mut self,
        model: &M,
        batches: &[impl AsRef<[Group]>],
        params: StepParams,
        activation_cache: Option<&M::ActivationCache>,
        stop: &AtomicBool,
        mut derivative: impl FnMut(usize, &TokenScores) -> Result<LossGradient>,
    ) -> Result<UpdateOutcome> {
        let process_group = self.optimizer.process_group().clone();
        // With several ranks, no rank may stop in the middle of a collective operation.
        let alone = process_group.world_size() == 1;
        if !alone && process_group.any(stop.load(Ordering::Relaxed))? {
            return Ok(UpdateOutcome::Stopped);
        }
        self.optimizer.all_gather_weights(model, || ())?;
        let mut gradients = model.zero_gradients()?;
        let mut non_finite = NonFinite::default();
        let mut checked = |index: usize, scores: &TokenScores| {
            let LossGradient { loss, dlogps } = derivative(index, scores)?;
            non_finite.record(&scores.logps, loss, &dlogps);
            if dlogps.len() == scores.logps.len() {
                return Ok(dlogps);
            }
            let (given, tokens) = (dlogps.len(), scores.logps.len());
            Err(Error::Model {
                what: format!(
                    "returned log-probabilities for {tokens} tokens, but the batch has {given}"
                ),
            })
        };
        let training = params.training(activation_cache);
        let reduction = self.optimizer.reduction(model, &gradients)?;
        for pass in passes(batches) {
            if alone && stop.load(Ordering::Relaxed) {
                return Ok(UpdateOutcome::Stopped);
            }
            process_group.heartbeat();
            // Before the last pass, later ones still accumulate into all gradients.
            let is_last = pass.end == batches.len();
            let on_final = &mut |from: usize| {
                if is_last {
                    reduction.final_from(from)
                }
            };
            backward(model, batches, pass, &training, &mut gradients, &mut checked, on_final)?;
        }
        model.finish_backward(&mut gradients, &mut |from| reduction.final_from(from))?;
        let began = Instant::now();
        let summed = reduction.finish(&gradients)?;
        let applied = match process_group.any(non_finite.any())? {
            true => StepResult { grad_norm: summed.norm(), taken: false },
            false => self.optimizer.step(model, &summed, params.learning_rate)?,
        };
        if applied.taken {
            model.parameters_changed();
        }
        self.optimizer_s = began.elapsed().as_secs_f64();
        if applied.taken {
            self.grad_norms.push_back(applied.grad_norm);
            self.grad_norms.drain(..self.grad_norms.len().saturating_sub(NORMS));
        } else {
            drop(summed);
            non_finite.gradients.extend(non_finite_gradients(model, &gradients)?);
            self.non_finite = NonFinite::merge_ranks(process_group.all_gather(non_finite)?);
        }
        Ok(UpdateOutcome::Done(applied))
    }

    /// Seconds of the last optimizer step.
    pub fn optimizer_s(&self) -> f64 {
        self.optimizer_s
    }
}

/// Micro-batches that share a forward pass: a single one, or all parts of one group.
///
/// The parts of a group are adjacent micro-batches of a single group each, with the same prompt.
pub(crate) fn passes(batches: &[impl AsRef<[Group]>]) -> Vec<Range<usize>> {
    let mut passes: Vec<Range<usize>> = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let before = passes.last_mut().filter(|pass| {
            let (first, this) = (batches[pass.start].as_ref(), batch.as_ref());
            matches!((first, this), ([a], [b]) if a.prompt == b.prompt)
        });
        match before {
            Some(pass) => pass.end = index + 1,
            None => passes.push(index..index + 1),
        }
    }
    passes
}

/// The groups of all micro-batches, with the parts of a group merged: each prompt is computed once.
pub fn merged_groups(batches: &[impl AsRef<[Group]>]) -> Vec<Group> {
    let whole = |pass: Range<usize>| match &batches[pass] {
        [batch] => batch.as_ref().to_vec(),
        split => {
            let (prompt, parts) = parts(split);
            vec![Group { prompt, completions: parts.concat() }]
        }
    };
    passes(batches).into_iter().flat_map(whole).collect()
}

/// The shared prompt, and the completions of each part of a group.
fn parts(batches: &[impl AsRef<[Group]>]) -> (Prompt, Vec<&[Vec<u32>]>) {
    let groups = || batches.iter().flat_map(AsRef::as_ref);
    let prompt = groups().next().map_or_else(Prompt::default, |group| group.prompt.clone());
    (prompt, groups().map(|group| group.completions.as_slice()).collect())
}

/// Accumulates the gradients of micro-batches that share a forward pass; `on_final` is called as gradients become
/// final.
///
/// # Errors
/// The model or `derivative` fails.
pub(crate) fn backward<M: Model>(
    model: &M,
    batches: &[impl AsRef<[Group]>],
    pass: Range<usize>,
    training: &TrainingPass<'_, M::ActivationCache>,
    gradients: &mut M::Gradients,
    derivative: &mut dyn FnMut(usize, &TokenScores) -> Result<Vec<f32>>,
    on_final: &mut GradientReadyHook<'_>,
) -> Result<()> {
    let first = pass.start;
    if pass.len() == 1 {
        let derivative = &mut |scores: &TokenScores| derivative(first, scores);
        return model.backward(batches[first].as_ref(), training, gradients, derivative, on_final);
    }
    let (prompt, parts) = parts(&batches[pass]);
    let derivative = &mut |part: usize, scores: &TokenScores| derivative(first + part, scores);
    model.backward_chunks(&prompt, &parts, training, gradients, derivative, on_final)
}

/// Scores all micro-batches, computing each prompt once. Each pass sends a heartbeat through `process_group`.
///
/// # Errors
/// The model fails.
pub fn score_all<M: Model>(
    model: &M,
    batches: &[impl AsRef<[Group]>],
    temperature: f64,
    process_group: &ProcessGroup,
) -> Result<Vec<TokenScores>> {
    let mut scores = Vec::with_capacity(batches.len());
    for pass in passes(batches) {
        process_group.heartbeat();
        if pass.len() == 1 {
            scores.push(model.score(batches[pass.start].as_ref(), temperature)?);
            continue;
        }
        let (prompt, parts) = parts(&batches[pass]);
        scores.extend(model.score_chunks(&prompt, &parts, temperature)?);
    }
    Ok(scores)
}

/// The tensors with non-finite gradients.
fn non_finite_gradients<M: Model>(model: &M, gradients: &M::Gradients) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, _) in model.parameters() {
        if gradients.get(&name).map(is_finite).transpose()? == Some(false) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use embodied_r_dist::{Communicator, Operation};

    use super::*;
    use crate::model::tests::toy::Bigram;
    use crate::settings::{Optim, OptimizerSettings};

    #[test]
    fn no_gradient_is_sent_while_a_later_pass_will_add_to_it() {
        let settings = OptimizerSettings {
            optim: Optim::Adamw,
            adam_beta1: 0.9,
            adam_beta2: 0.95,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        };
        let rank = |communicator: Communicator| {
            let sent = || {
                let traffic = communicator.traffic();
                traffic.get(&Operation::ReduceScatter).map_or(0, |traffic| traffic.calls)
            };
            let model = Bigram::new(5, 1);
            let process_group = ProcessGroup::new(communicator.clone());
            let mut updater =
                Updater::new(Optimizer::new(settings, &model, &process_group).unwrap());
            let group = |prompt: u32| {
                vec![Group { prompt: vec![prompt].into(), completions: vec![vec![2]] }]
            };
            let batches = [group(1), group(3), group(4)];
            let params = StepParams { temperature: 1.0, learning_rate: 0.1, dropout_seed: 0 };
            let mut early = Vec::new();
            let derivative = |_: usize, scores: &TokenScores| {
                // Long enough for an erroneous early send to be counted.
                std::thread::sleep(Duration::from_millis(100));
                early.push(sent());
                Ok(LossGradient { loss: 0.0, dlogps: vec![1.0; scores.logps.len()] })
            };
            let stop = AtomicBool::new(false);
            updater.run(&model, &batches, params, None, &stop, derivative).unwrap();
            communicator.finish().unwrap();
            (early, sent())
        };
        assert!(
            Communicator::on_threads(2, rank)
                .unwrap()
                .iter()
                .all(|sent| *sent == (vec![0, 0, 0], 2))
        );
    }

    #[test]
    fn only_adjacent_parts_of_one_group_share_a_pass() {
        let group = |prompt: u32| Group { prompt: vec![prompt].into(), completions: vec![vec![9]] };
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
    fn the_parts_of_a_group_share_one_prompt() {
        let group = |prompt: u32, completion: u32| Group {
            prompt: vec![prompt].into(),
            completions: vec![vec![completion]],
        };
        let batches = [vec![group(1, 7)], vec![group(1, 8)], vec![group(1, 9), group(2, 9)]];
        let whole: Vec<(Vec<u32>, Vec<Vec<u32>>)> = merged_groups(&batches)
            .into_iter()
            .map(|group| (group.prompt.ids().to_vec(), group.completions))
            .collect();
        let expected =
            [(vec![1], vec![vec![7], vec![8]]), (vec![1], vec![vec![9]]), (vec![2], vec![vec![9]])];
        assert_eq!(whole, expected);
    }
}
