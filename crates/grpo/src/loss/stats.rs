//! What is logged about a loss, as sums that can be added over micro-batches.

use serde::{Deserialize, Serialize};

use super::Level;
use super::terms::{K3, Term};

/// Sums over ratios, of which there is one a token or one a completion, and extremes over completions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    ratios: f64,
    low: f64,
    high: f64,
    low_min: f64,
    high_max: f64,
    divergence: f64,
    divergence_tokens: f64,
    bounded: f64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            ratios: 0.0,
            low: 0.0,
            high: 0.0,
            low_min: f64::INFINITY,
            high_max: 0.0,
            divergence: 0.0,
            divergence_tokens: 0.0,
            bounded: 0.0,
        }
    }
}

impl Stats {
    /// Adds another micro-batch's sums.
    pub fn merge(&mut self, other: &Self) {
        self.ratios += other.ratios;
        self.low += other.low;
        self.high += other.high;
        self.low_min = self.low_min.min(other.low_min);
        self.high_max = self.high_max.max(other.high_max);
        self.divergence += other.divergence;
        self.divergence_tokens += other.divergence_tokens;
        self.bounded += other.bounded;
    }

    /// The mean divergence from the reference by token; `None` without a reference.
    pub fn kl(&self) -> Option<f64> {
        (self.divergence_tokens > 0.0).then(|| self.divergence / self.divergence_tokens)
    }

    /// Share of ratios clipped below.
    pub fn clip_low_mean(&self) -> f64 {
        self.low / self.ratios.max(1.0)
    }

    /// Share of ratios clipped above.
    pub fn clip_high_mean(&self) -> f64 {
        self.high / self.ratios.max(1.0)
    }

    /// The least share of ratios clipped below, by completion.
    pub fn clip_low_min(&self) -> f64 {
        if self.low_min.is_finite() { self.low_min } else { 0.0 }
    }

    /// The greatest share of ratios clipped above, by completion.
    pub fn clip_high_max(&self) -> f64 {
        self.high_max
    }

    /// Tokens whose log-ratio against the reference was cut off.
    pub fn kl_bounded(&self) -> f64 {
        self.bounded
    }

    pub(super) fn divergence(&mut self, k3: &K3, ratio: f64) {
        self.divergence += k3.value * ratio;
        self.divergence_tokens += 1.0;
        self.bounded += f64::from(u8::from(k3.bounded));
    }

    pub(super) fn completion(&mut self, level: Level) -> CompletionStats<'_> {
        CompletionStats { stats: self, level, tokens: 0.0, low: 0.0, high: 0.0 }
    }

    /// A completion that does not count still has a ratio of its own, which is 1: as in TRL.
    pub(super) fn left_out(&mut self, level: Level) {
        if level == Level::Sequence {
            self.ratios += 1.0;
            self.low_min = 0.0;
        }
    }
}

/// The sums of one completion before they are added to the whole.
pub(super) struct CompletionStats<'a> {
    stats: &'a mut Stats,
    level: Level,
    tokens: f64,
    low: f64,
    high: f64,
}

impl CompletionStats<'_> {
    pub(super) fn token(&mut self, term: &Term) {
        self.tokens += 1.0;
        self.low += f64::from(u8::from(term.clipped_low));
        self.high += f64::from(u8::from(term.clipped_high));
    }

    pub(super) fn finish(self) {
        let n = self.tokens.max(1.0);
        let (low, high) = (self.low / n, self.high / n);
        // All tokens of a completion share one ratio at the level of sequences.
        let ratios = if self.level == Level::Sequence { 1.0 } else { n };
        self.stats.ratios += ratios;
        self.stats.low += low * ratios;
        self.stats.high += high * ratios;
        self.stats.low_min = self.stats.low_min.min(low);
        self.stats.high_max = self.stats.high_max.max(high);
    }
}
