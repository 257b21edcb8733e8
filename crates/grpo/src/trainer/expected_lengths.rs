//! Expected completion lengths, to balance the load over ranks.

use std::collections::HashMap;

use crate::rollout::Rollout;

/// The expected completion length of a question: its last mean length, or the running mean over all questions.
///
/// It only affects the assignment of work to ranks; no result depends on it.
#[derive(Debug, Clone)]
pub(super) struct ExpectedLengths {
    /// Mean completion length in tokens, by question index.
    known: HashMap<usize, f64>,
    /// Exponential moving average over all questions.
    mean: f64,
}

/// Smoothing factor of the moving average.
const NEW: f64 = 0.25;

impl ExpectedLengths {
    /// Starts from a quarter of the maximum completion length.
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashMap::new(), mean: most as f64 / 4.0 }
    }

    /// Expected tokens of `completions` completions of a question.
    pub(super) fn tokens(&self, question: usize, completions: usize) -> usize {
        let each = self.known.get(&question).copied().unwrap_or(self.mean);
        (each * completions as f64).ceil() as usize
    }

    /// Updates the estimates with sampled completions.
    pub(super) fn update(&mut self, rollouts: &[Rollout]) {
        let mut means = Vec::with_capacity(rollouts.len());
        for rollout in rollouts.iter().filter(|rollout| !rollout.completions.is_empty()) {
            let tokens: usize = rollout.completions.iter().map(|c| c.ids.len()).sum();
            let mean = tokens as f64 / rollout.completions.len() as f64;
            self.known.insert(rollout.index, mean);
            means.push(mean);
        }
        if !means.is_empty() {
            let mean = means.iter().sum::<f64>() / means.len() as f64;
            self.mean += NEW * (mean - self.mean);
        }
    }
}
