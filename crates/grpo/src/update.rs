//! One optimiser step over micro-batches, shared by all ways of training.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::loss::Output;
use crate::model::{Gradients, Group, Model, TokenScores};
use crate::optimizer::{Applied, Optimizer};
use crate::skipped::NonFinite;

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

/// Gradients and the optimiser that they go to.
#[derive(Debug)]
pub struct Updater<M: Model> {
    gradients: M::Gradients,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// What was not finite in the last step, if it was left out.
    found: NonFinite,
    /// The last norms that were finite, the newest last.
    norms: VecDeque<f64>,
}

impl<M: Model> Updater<M> {
    /// An updater with gradients of 0.
    ///
    /// # Errors
    /// The gradients cannot be allocated.
    pub fn new(model: &M, optimizer: Optimizer) -> Result<Self> {
        Ok(Self {
            gradients: model.zero_gradients()?,
            optimizer,
            found: NonFinite::default(),
            norms: VecDeque::new(),
        })
    }

    /// What was not finite in the last step that was left out.
    pub fn found(&self) -> &NonFinite {
        &self.found
    }

    /// The last norms of gradients that were finite, at most five, the newest last.
    pub fn norms(&self) -> Vec<f64> {
        self.norms.iter().copied().collect()
    }

    /// Adds up the gradients of `batches` and takes one step with learning rate `lr`, unless the
    /// loss, a log-probability or a gradient is not finite.
    ///
    /// `derivative` gets a micro-batch's number and scores and gives the loss and its derivative by
    /// each log-probability. `stop` is looked at before every micro-batch.
    ///
    /// # Errors
    /// What the model, `derivative` or the optimiser return.
    pub fn run(
        &mut self,
        model: &M,
        batches: &[Vec<Group>],
        temperature: f64,
        lr: f64,
        stop: &AtomicBool,
        mut derivative: impl FnMut(usize, &TokenScores) -> Result<Derivative>,
    ) -> Result<Update> {
        self.gradients.clear()?;
        let mut found = NonFinite::default();
        for (index, groups) in batches.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(Update::Stopped);
            }
            model.backward(groups, temperature, &mut self.gradients, &mut |scores| {
                let Derivative { loss, dlogps } = derivative(index, scores)?;
                found.look_at(scores, loss, &dlogps);
                if dlogps.len() == scores.logps.len() {
                    return Ok(dlogps);
                }
                let (given, tokens) = (dlogps.len(), scores.logps.len());
                Err(Error::Model {
                    what: format!("scored {tokens} tokens where the batch has {given}"),
                })
            })?;
        }
        let applied = match found.found() {
            true => Applied { grad_norm: self.gradients.norm()?, taken: false },
            false => self.optimizer.step(model, &self.gradients, lr)?,
        };
        if applied.taken {
            self.norms.push_back(applied.grad_norm);
            self.norms.drain(..self.norms.len().saturating_sub(NORMS));
        } else {
            found.name_gradients(model, &self.gradients)?;
            self.found = found;
        }
        Ok(Update::Done(applied))
    }
}
