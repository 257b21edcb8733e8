//! How long completions will be, so that ranks get as much work as each other.

use std::collections::HashMap;

use crate::rollout::Rollout;

/// What is expected of a question's completions: what they were the last time, else what all were lately.
///
/// It decides who does which work, and nothing else: no result depends on it.
#[derive(Debug, Clone)]
pub(super) struct ExpectedLengths {
    /// Mean tokens of a completion, by question.
    known: HashMap<usize, f64>,
    /// Of all questions of late.
    mean: f64,
}

/// The share of a new mean in the one of late.
const NEW: f64 = 0.25;

impl ExpectedLengths {
    /// Nothing is known but the most tokens of a completion.
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashMap::new(), mean: most as f64 / 4.0 }
    }

    /// Tokens of `completions` completions of a question.
    pub(super) fn tokens(&self, question: usize, completions: usize) -> usize {
        let each = self.known.get(&question).copied().unwrap_or(self.mean);
        (each * completions as f64).ceil() as usize
    }

    /// Takes note of what came.
    pub(super) fn learn(&mut self, rollouts: &[Rollout]) {
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
