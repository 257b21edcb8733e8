//! Statistics of a loss, as sums that merge over micro-batches.

use serde::{Deserialize, Serialize};

use super::ImportanceSamplingLevel;
use super::terms::{K3, Term};

/// Sums over ratios, one per token or one per completion, and extremes over completions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossStats {
    ratios: f64,
    low: f64,
    high: f64,
    low_min: f64,
    high_max: f64,
    kl: f64,
    kl_tokens: f64,
    bounded: f64,
}

impl Default for LossStats {
    fn default() -> Self {
        Self {
            ratios: 0.0,
            low: 0.0,
            high: 0.0,
            low_min: f64::INFINITY,
            high_max: 0.0,
            kl: 0.0,
            kl_tokens: 0.0,
            bounded: 0.0,
        }
    }
}

impl LossStats {
    /// Adds another micro-batch's sums.
    pub fn merge(&mut self, other: &Self) {
        self.ratios += other.ratios;
        self.low += other.low;
        self.high += other.high;
        self.low_min = self.low_min.min(other.low_min);
        self.high_max = self.high_max.max(other.high_max);
        self.kl += other.kl;
        self.kl_tokens += other.kl_tokens;
        self.bounded += other.bounded;
    }

    /// Mean per-token KL to the reference; `None` without a reference.
    pub fn kl(&self) -> Option<f64> {
        (self.kl_tokens > 0.0).then(|| self.kl / self.kl_tokens)
    }

    /// Fraction of ratios clipped below.
    pub fn clip_low_mean(&self) -> f64 {
        self.low / self.ratios.max(1.0)
    }

    /// Fraction of ratios clipped above.
    pub fn clip_high_mean(&self) -> f64 {
        self.high / self.ratios.max(1.0)
    }

    /// Minimum fraction of ratios clipped below, over completions.
    pub fn clip_low_min(&self) -> f64 {
        if self.low_min.is_finite() { self.low_min } else { 0.0 }
    }

    /// Maximum fraction of ratios clipped above, over completions.
    pub fn clip_high_max(&self) -> f64 {
        self.high_max
    }

    /// Number of tokens whose log-ratio to the reference was clamped.
    pub fn kl_bounded(&self) -> f64 {
        self.bounded
    }

    pub(super) fn add_kl(&mut self, k3: &K3, ratio: f64) {
        self.kl += k3.value * ratio;
        self.kl_tokens += 1.0;
        self.bounded += f64::from(u8::from(k3.bounded));
    }

    pub(super) fn completion(&mut self, level: ImportanceSamplingLevel) -> CompletionStats<'_> {
        CompletionStats { stats: self, level, tokens: 0.0, low: 0.0, high: 0.0 }
    }

    /// At the sequence level, a masked completion still counts as a ratio of 1, as in TRL.
    pub(super) fn masked(&mut self, level: ImportanceSamplingLevel) {
        if level == ImportanceSamplingLevel::Sequence {
            self.ratios += 1.0;
            self.low_min = 0.0;
        }
    }
}

/// The sums of one completion, before they are merged.
pub(super) struct CompletionStats<'a> {
    stats: &'a mut LossStats,
    level: ImportanceSamplingLevel,
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
        // At the sequence level, all tokens of a completion share one ratio.
        let ratios = if self.level == ImportanceSamplingLevel::Sequence { 1.0 } else { n };
        self.stats.ratios += ratios;
        self.stats.low += low * ratios;
        self.stats.high += high * ratios;
        self.stats.low_min = self.stats.low_min.min(low);
        self.stats.high_max = self.stats.high_max.max(high);
    }
}
