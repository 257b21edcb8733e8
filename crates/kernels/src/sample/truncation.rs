//! Truncation of a row's distribution: min-p, top-k and top-p.

use super::nucleus;
use super::scan::{Scan, TruncatedScan};
use super::weights::Cutoff;

/// Truncation of the distribution; the default keeps everything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truncation {
    /// min-p: keep entries with at least this share of the largest probability; 0 is off.
    pub min_p: f64,
    /// top-k of what min-p keeps, including ties with the last; 0 is off.
    pub top_k: usize,
    /// top-p (nucleus) of the probability mass that remains; 1 is off.
    pub top_p: f64,
}

impl Default for Truncation {
    fn default() -> Self {
        Self { min_p: 0.0, top_k: 0, top_p: 1.0 }
    }
}

impl<'a> Scan<'a> {
    /// Applies min-p, then top-k, then top-p.
    pub fn truncated(&'a self, to: &Truncation) -> TruncatedScan<'a> {
        let mut logit = f32::NEG_INFINITY;
        if to.min_p > 0.0 {
            logit = at_least(f64::from(self.top) + to.min_p.ln() / self.scale);
        }
        if to.top_k > 0 && to.top_k < self.logits.len() {
            logit = logit.max(self.nth_largest(to.top_k));
        }
        let mut kept = self.truncated_at(Cutoff { logit, ..Cutoff::NONE });
        if to.top_p < 1.0 && kept.total > 0.0 {
            kept = self.truncated_at(nucleus::cutoff(&kept, to.top_p));
        }
        kept
    }
}

/// Rounds up to f32.
fn at_least(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}
