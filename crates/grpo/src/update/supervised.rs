//! Supervised learning: the training step that fine-tuning and language modeling share.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use crate::error::Result;
use crate::model::{Group, Model, Prompt};
use crate::update::packing::{GroupLengths, GroupSlice, pack};
use crate::update::{LossGradient, StepParams, UpdateOutcome, Updater};
use embodied_r_dist::ProcessGroup;

/// A training example: only targets of the completion contribute to the loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The context, at least one token.
    pub prompt: Prompt,
    /// The tokens that follow.
    pub completion: Vec<u32>,
    /// Ranges of the completion that are no targets, as where PyTorch's labels are -100; they do not overlap.
    pub masked: Vec<Range<usize>>,
}

impl Example {
    /// An example of which all completion tokens are targets.
    pub fn new(prompt: Prompt, completion: Vec<u32>) -> Self {
        Self { prompt, completion, masked: Vec::new() }
    }

    /// Total tokens of both.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.completion.len()
    }

    /// Whether each token of the completion is a target.
    fn is_target(&self) -> impl Iterator<Item = bool> {
        (0..self.completion.len()).map(|at| !self.masked.iter().any(|range| range.contains(&at)))
    }
}

/// Examples of a micro-batch.
struct Batch {
    groups: Vec<Group>,
    /// Whether each completion token is a target.
    is_target: Vec<bool>,
}

impl AsRef<[Group]> for Batch {
    fn as_ref(&self) -> &[Group] {
        &self.groups
    }
}

impl Batch {
    fn targets(&self) -> usize {
        self.is_target.iter().filter(|is_target| **is_target).count()
    }

    /// The sum of the values of targets.
    fn sum(&self, values: &[f32]) -> f64 {
        let values = values.iter().zip(&self.is_target).filter(|(_, is_target)| **is_target);
        values.map(|(value, _)| f64::from(*value)).sum()
    }
}

/// Statistics of a supervised step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SupervisedStats {
    /// Mean negative log-likelihood of the targets, before the step.
    pub loss: f64,
    /// Mean entropy at these tokens.
    pub entropy: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether the optimizer applied the step.
    pub taken: bool,
    /// Tokens processed, prompts included.
    pub tokens: u64,
}

/// Takes one optimizer step on `examples`: the loss is the mean over all targets, independent of the
/// micro-batches of at most `budget` tokens.
///
/// With several ranks, each takes its share of the examples. `None` if a stop was requested, with all parameters
/// unchanged.
///
/// # Errors
/// The model or the optimizer fails.
pub fn train_step<M: Model>(
    model: &M,
    updater: &mut Updater,
    examples: &[&Example],
    budget: usize,
    params: StepParams,
    stop: &AtomicBool,
) -> Result<Option<SupervisedStats>> {
    let process_group = updater.optimizer.process_group().clone();
    let batches = batches(&share(examples, &process_group), budget);
    let targets = examples.iter().flat_map(|example| example.is_target());
    let count = targets.filter(|is_target| *is_target).count().max(1);
    let (mut logps, mut entropy) = (0.0, 0.0);
    let update = updater.run(model, &batches, params, None, stop, |index, scores| {
        let batch = &batches[index];
        let here = batch.sum(&scores.logps);
        logps += here;
        entropy += batch.sum(&scores.entropies);
        let dlogp = |is_target: &bool| if *is_target { -1.0 / count as f32 } else { 0.0 };
        let dlogps = batch.is_target.iter().map(dlogp).collect();
        Ok(LossGradient { loss: -here / count as f64, dlogps })
    })?;
    let UpdateOutcome::Done(applied) = update else { return Ok(None) };
    let sums = process_group.all_reduce_sum(vec![logps, entropy])?;
    let (logps, entropy) = (sums[0], sums[1]);
    Ok(Some(SupervisedStats {
        loss: -logps / count as f64,
        entropy: entropy / count as f64,
        grad_norm: applied.grad_norm,
        taken: applied.taken,
        tokens: examples.iter().map(|example| example.tokens() as u64).sum(),
    }))
}

/// Mean negative log-likelihood of the targets of `examples`, each rank scoring its share.
///
/// # Errors
/// The model fails, or a rank is lost.
pub fn mean_loss<M: Model>(
    model: &M,
    examples: &[&Example],
    budget: usize,
    process_group: &ProcessGroup,
) -> Result<f64> {
    let (mut logps, mut targets) = (0.0, 0);
    for batch in batches(&share(examples, process_group), budget) {
        process_group.heartbeat();
        let scores = model.score(batch.as_ref(), 1.0)?;
        logps += batch.sum(&scores.logps);
        targets += batch.targets();
    }
    let sums = process_group.all_reduce_sum(vec![logps, targets as f64])?;
    Ok(-sums[0] / sums[1].max(1.0))
}

/// The examples assigned to this rank.
fn share<'a>(examples: &[&'a Example], process_group: &ProcessGroup) -> Vec<&'a Example> {
    let costs: Vec<usize> = examples.iter().map(|example| example.tokens()).collect();
    process_group.assigned(&costs).into_iter().map(|index| examples[index]).collect()
}

fn batches(examples: &[&Example], budget: usize) -> Vec<Batch> {
    let lengths: Vec<GroupLengths> = examples
        .iter()
        .map(|example| GroupLengths {
            prompt: example.prompt.len(),
            completions: vec![example.completion.len()],
        })
        .collect();
    let group = |index: usize| Group {
        prompt: examples[index].prompt.clone(),
        completions: vec![examples[index].completion.clone()],
    };
    let packed = pack(&lengths, budget);
    let batch = |slices: &Vec<GroupSlice>| Batch {
        groups: slices.iter().map(|slice| group(slice.group)).collect(),
        is_target: slices.iter().flat_map(|slice| examples[slice.group].is_target()).collect(),
    };
    packed.iter().map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::toy::Bigram;
    use crate::settings::{Optim, OptimizerSettings};
    use crate::update::optimizer::Optimizer;

    const SETTINGS: OptimizerSettings = OptimizerSettings {
        optim: Optim::Adamw,
        adam_beta1: 0.9,
        adam_beta2: 0.95,
        adam_epsilon: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: 1e9,
    };

    const PARAMS: StepParams = StepParams { temperature: 1.0, learning_rate: 0.1, dropout_seed: 0 };

    fn examples() -> Vec<Example> {
        let example = |prompt: &[u32], completion: &[u32]| {
            Example::new(prompt.to_vec().into(), completion.to_vec())
        };
        vec![example(&[1, 2], &[3, 4, 0]), example(&[3], &[1, 0]), example(&[2], &[4, 4, 1, 0])]
    }

    fn after_a_step(budget: usize) -> (Vec<f32>, SupervisedStats) {
        let model = Bigram::new(5, 1);
        let mut updater =
            Updater::new(Optimizer::new(SETTINGS, &model, &ProcessGroup::default()).unwrap());
        let examples = examples();
        let examples: Vec<&Example> = examples.iter().collect();
        let stop = AtomicBool::new(false);
        let stats =
            train_step(&model, &mut updater, &examples, budget, PARAMS, &stop).unwrap().unwrap();
        (model.values(), stats)
    }

    #[test]
    fn a_step_does_not_depend_on_the_micro_batches() {
        let (whole, stats) = after_a_step(1000);
        let (cut, stats_cut) = after_a_step(1);
        assert!((stats.loss - stats_cut.loss).abs() < 1e-12);
        for (a, b) in whole.iter().zip(&cut) {
            assert!((a - b).abs() < 1e-4, "{a} and {b}");
        }
    }

    #[test]
    fn masked_tokens_have_no_part_in_loss_and_gradient() {
        let step = |examples: &[Example], budget| {
            let model = Bigram::new(5, 1);
            let mut updater =
                Updater::new(Optimizer::new(SETTINGS, &model, &ProcessGroup::default()).unwrap());
            let examples: Vec<&Example> = examples.iter().collect();
            let alone = ProcessGroup::default();
            let before = mean_loss(&model, &examples, budget, &alone).unwrap();
            let stop = AtomicBool::new(false);
            let stats = train_step(&model, &mut updater, &examples, budget, PARAMS, &stop);
            let stats = stats.unwrap().unwrap();
            assert!((stats.loss - before).abs() < 1e-12);
            (model.values(), stats)
        };
        // A bigram model sees only the token before a target, so bare targets after it teach the same.
        let masked = |prompt: u32, completion: &[u32], masked: &[(usize, usize)]| Example {
            masked: masked.iter().map(|(start, end)| *start..*end).collect(),
            ..Example::new(vec![prompt].into(), completion.to_vec())
        };
        let some = [masked(2, &[3, 4, 0], &[(1, 2)]), masked(1, &[4, 4, 1, 0], &[(0, 1), (2, 9)])];
        let targets = [masked(2, &[3], &[]), masked(4, &[0], &[]), masked(4, &[4], &[])];
        let (expected, alone) = step(&targets, 1000);
        for budget in [1, 1000] {
            let (values, stats) = step(&some, budget);
            assert!((stats.loss - alone.loss).abs() < 1e-6 && stats.tokens == 9);
            assert!((stats.entropy - alone.entropy).abs() < 1e-6);
            assert!((stats.grad_norm - alone.grad_norm).abs() < 1e-6);
            for (a, b) in values.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-4, "{a} and {b}");
            }
        }
    }

    #[test]
    fn learning_lowers_the_loss() {
        let model = Bigram::new(5, 1);
        let mut updater =
            Updater::new(Optimizer::new(SETTINGS, &model, &ProcessGroup::default()).unwrap());
        let examples = examples();
        let examples: Vec<&Example> = examples.iter().collect();
        let stop = AtomicBool::new(false);
        let before = mean_loss(&model, &examples, 100, &ProcessGroup::default()).unwrap();
        let first =
            train_step(&model, &mut updater, &examples, 100, PARAMS, &stop).unwrap().unwrap();
        assert!((first.loss - before).abs() < 1e-12);
        for _ in 0..30 {
            train_step(&model, &mut updater, &examples, 100, PARAMS, &stop).unwrap();
        }
        assert!(
            mean_loss(&model, &examples, 100, &ProcessGroup::default()).unwrap() < 0.5 * before
        );
    }
}
