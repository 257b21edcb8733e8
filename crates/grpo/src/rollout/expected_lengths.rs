//! Expected completion lengths, to balance the load over ranks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rollout::Rollout;

/// Smoothing factor of the moving average.
const NEW: f64 = 0.25;

/// Expected share of the maximum length before the first step.
const INITIAL_SHARE: f64 = 0.25;

/// The expected completion length of a question: its last mean length, or the moving average over all questions.
///
/// With several ranks it decides which rank computes what, hence the order of sums, so checkpoints save it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedLengths {
    /// Mean completion length in tokens, by question index.
    known: BTreeMap<usize, f64>,
    /// Exponential moving average over all questions; `None` before the first step.
    mean: Option<f64>,
}

impl ExpectedLengths {
    /// Expected tokens of a completion of a question, if completions have at most `longest`.
    pub(crate) fn tokens(&self, question: usize, longest: usize) -> usize {
        let known = self.known.get(&question).copied().or(self.mean);
        known.unwrap_or(INITIAL_SHARE * longest as f64).ceil() as usize
    }

    /// Updates the estimates with sampled completions.
    pub(crate) fn update(&mut self, rollouts: &[Rollout]) {
        let mut means = Vec::with_capacity(rollouts.len());
        for rollout in rollouts.iter().filter(|rollout| !rollout.completions.is_empty()) {
            let tokens: usize = rollout.completions.iter().map(|c| c.ids.len()).sum();
            let mean = tokens as f64 / rollout.completions.len() as f64;
            self.known.insert(rollout.index, mean);
            means.push(mean);
        }
        if !means.is_empty() {
            let new = means.iter().sum::<f64>() / means.len() as f64;
            self.mean = Some(self.mean.map_or(new, |mean| mean + NEW * (new - mean)));
        }
    }
}
