//! Learning from given texts: the step that fine-tuning and language modelling share.

use std::sync::atomic::AtomicBool;

use crate::batches::{Lengths, pack};
use crate::error::Result;
use crate::model::{Group, Model};
use crate::team::Team;
use crate::update::{Derivative, Pace, Update, Updater};

/// A text to learn: only the completion counts in the loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What comes before, at least one token.
    pub prompt: Vec<u32>,
    /// What is to be said.
    pub completion: Vec<u32>,
}

impl Example {
    /// Tokens of both parts.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.completion.len()
    }
}

/// What a supervised step told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// The mean negative log-probability of the completions' tokens, before the step.
    pub loss: f64,
    /// The mean entropy of the distributions at these tokens.
    pub entropy: f64,
    /// The gradient's norm before it was clipped.
    pub grad_norm: f64,
    /// Whether the optimiser took the step.
    pub taken: bool,
    /// Tokens that went through the model, prompts included.
    pub tokens: u64,
}

/// Takes one optimiser step on `examples`: the loss is the mean over all of their completions'
/// tokens, however they are cut into micro-batches of at most `budget` tokens.
///
/// Of several ranks each takes its share of the examples. `None` if the user wants to stop, with all parameters as
/// before.
///
/// # Errors
/// What the model or the optimiser return.
pub fn learn<M: Model>(
    model: &M,
    updater: &mut Updater,
    examples: &[&Example],
    budget: usize,
    pace: Pace,
    stop: &AtomicBool,
) -> Result<Option<Learned>> {
    let team = updater.optimizer.team().clone();
    let batches = batches(&share(examples, &team), budget);
    let count = examples.iter().map(|example| example.completion.len()).sum::<usize>().max(1);
    let (mut logps, mut entropy) = (0.0, 0.0);
    let update = updater.run(model, &batches, pace, None, stop, |_, scores| {
        let here = sum(&scores.logps);
        logps += here;
        entropy += sum(&scores.entropies);
        let dlogps = vec![-1.0 / count as f32; scores.logps.len()];
        Ok(Derivative { loss: -here / count as f64, dlogps })
    })?;
    let Update::Done(applied) = update else { return Ok(None) };
    let sums = team.sums(vec![logps, entropy])?;
    let (logps, entropy) = (sums[0], sums[1]);
    Ok(Some(Learned {
        loss: -logps / count as f64,
        entropy: entropy / count as f64,
        grad_norm: applied.grad_norm,
        taken: applied.taken,
        tokens: examples.iter().map(|example| example.tokens() as u64).sum(),
    }))
}

/// The mean negative log-probability of the completions' tokens of `examples`, of which each rank scores its share.
///
/// # Errors
/// What the model returns; a rank is lost.
pub fn mean_loss<M: Model>(
    model: &M,
    examples: &[&Example],
    budget: usize,
    team: &Team,
) -> Result<f64> {
    let (mut logps, mut tokens) = (0.0, 0);
    for batch in batches(&share(examples, team), budget) {
        team.beat();
        let scores = model.score(&batch, 1.0)?;
        logps += sum(&scores.logps);
        tokens += scores.logps.len();
    }
    let sums = team.sums(vec![logps, tokens as f64])?;
    Ok(-sums[0] / sums[1].max(1.0))
}

/// The examples of which this rank makes gradients.
fn share<'a>(examples: &[&'a Example], team: &Team) -> Vec<&'a Example> {
    let costs: Vec<usize> = examples.iter().map(|example| example.tokens()).collect();
    team.share(&costs).into_iter().map(|index| examples[index]).collect()
}

fn batches(examples: &[&Example], budget: usize) -> Vec<Vec<Group>> {
    let lengths: Vec<Lengths> = examples
        .iter()
        .map(|example| Lengths {
            prompt: example.prompt.len(),
            completions: vec![example.completion.len()],
        })
        .collect();
    let group = |index: usize| Group {
        prompt: examples[index].prompt.clone(),
        completions: vec![examples[index].completion.clone()],
    };
    let packed = pack(&lengths, budget);
    packed.iter().map(|pieces| pieces.iter().map(|piece| group(piece.group)).collect()).collect()
}

fn sum(values: &[f32]) -> f64 {
    values.iter().copied().map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::toy::Bigram;
    use crate::optimizer::{Optim, Optimizer, OptimizerSettings};

    const SETTINGS: OptimizerSettings = OptimizerSettings {
        optim: Optim::Adamw,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: 1e9,
    };

    const PACE: Pace = Pace { temperature: 1.0, learning_rate: 0.1, noise: 0 };

    fn examples() -> Vec<Example> {
        let example = |prompt: &[u32], completion: &[u32]| Example {
            prompt: prompt.to_vec(),
            completion: completion.to_vec(),
        };
        vec![example(&[1, 2], &[3, 4, 0]), example(&[3], &[1, 0]), example(&[2], &[4, 4, 1, 0])]
    }

    fn after_a_step(budget: usize) -> (Vec<f32>, Learned) {
        let model = Bigram::new(5, 1);
        let mut updater = Updater::new(Optimizer::new(SETTINGS, &model, &Team::default()).unwrap());
        let examples = examples();
        let examples: Vec<&Example> = examples.iter().collect();
        let stop = AtomicBool::new(false);
        let learned = learn(&model, &mut updater, &examples, budget, PACE, &stop).unwrap().unwrap();
        (model.numbers(), learned)
    }

    #[test]
    fn a_step_does_not_depend_on_how_the_batch_is_cut() {
        let (whole, told) = after_a_step(1000);
        let (cut, told_cut) = after_a_step(1);
        assert!((told.loss - told_cut.loss).abs() < 1e-12);
        for (a, b) in whole.iter().zip(&cut) {
            assert!((a - b).abs() < 1e-4, "{a} and {b}");
        }
    }

    #[test]
    fn learning_lowers_the_loss() {
        let model = Bigram::new(5, 1);
        let mut updater = Updater::new(Optimizer::new(SETTINGS, &model, &Team::default()).unwrap());
        let examples = examples();
        let examples: Vec<&Example> = examples.iter().collect();
        let stop = AtomicBool::new(false);
        let before = mean_loss(&model, &examples, 100, &Team::default()).unwrap();
        let first = learn(&model, &mut updater, &examples, 100, PACE, &stop).unwrap().unwrap();
        assert!((first.loss - before).abs() < 1e-12);
        for _ in 0..30 {
            learn(&model, &mut updater, &examples, 100, PACE, &stop).unwrap();
        }
        assert!(mean_loss(&model, &examples, 100, &Team::default()).unwrap() < 0.5 * before);
    }
}
