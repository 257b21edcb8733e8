//! One optimiser step over micro-batches, shared by all ways of training.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::model::{Gradients, Group, Model, TokenScores};
use crate::optimizer::{Applied, Optimizer};

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

/// Gradients and the optimiser that they go to.
#[derive(Debug)]
pub struct Updater<M: Model> {
    gradients: M::Gradients,
    /// The optimiser.
    pub optimizer: Optimizer,
}

impl<M: Model> Updater<M> {
    /// An updater with gradients of 0.
    ///
    /// # Errors
    /// The gradients cannot be allocated.
    pub fn new(model: &M, optimizer: Optimizer) -> Result<Self> {
        Ok(Self { gradients: model.zero_gradients()?, optimizer })
    }

    /// Adds up the gradients of `batches` and takes one step at `pace`.
    ///
    /// `derivative` gets a micro-batch's number and scores and gives the derivative of the step's
    /// loss by each log-probability. `stop` is looked at before every micro-batch.
    ///
    /// # Errors
    /// What the model, `derivative` or the optimiser return.
    pub fn run(
        &mut self,
        model: &M,
        batches: &[Vec<Group>],
        pace: Pace,
        stop: &AtomicBool,
        mut derivative: impl FnMut(usize, &TokenScores) -> Result<Vec<f32>>,
    ) -> Result<Update> {
        let Pace { temperature, learning_rate, noise } = pace;
        self.gradients.clear()?;
        for (index, groups) in batches.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(Update::Stopped);
            }
            model.backward(groups, temperature, noise, &mut self.gradients, &mut |scores| {
                let derivative = derivative(index, scores)?;
                if derivative.len() == scores.logps.len() {
                    return Ok(derivative);
                }
                let (given, tokens) = (derivative.len(), scores.logps.len());
                Err(Error::Model {
                    what: format!("scored {tokens} tokens where the batch has {given}"),
                })
            })?;
        }
        Ok(Update::Done(self.optimizer.step(model, &self.gradients, learning_rate)?))
    }
}
