//! Sampling from rows of logits, on the logits' device.

use candle_core::Tensor;

use super::scan::Scan;
use super::truncation::Truncation;
use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::floats;

const OP: &str = "sample";

/// A sampling request for one row of logits.
#[derive(Debug, Clone)]
pub struct RowSampling {
    /// Row index.
    pub row: usize,
    /// Multiplier of the logits (inverse temperature), above 0.
    pub scale: f64,
    /// Edits of the logits, applied first.
    pub edits: LogitEdits,
    /// Greedy or random.
    pub mode: SamplingMode,
}

/// How tokens are drawn.
#[derive(Debug, Clone)]
pub enum SamplingMode {
    /// Argmax, the first of ties.
    Greedy,
    /// Inverse-CDF sampling after truncation, one draw per number in [0, 1), see [`super::TruncatedScan::draw`];
    /// argmax if no entry has a weight.
    Random(Vec<f64>, Truncation),
}

/// Edits of single logits, before scaling.
#[derive(Debug, Clone, Default)]
pub struct LogitEdits {
    /// Allowed ids: all other logits become -∞. `None` allows all.
    pub allowed: Option<Vec<u32>>,
    /// Changes by id, applied in this order.
    pub changes: Vec<(u32, LogitChange)>,
}

/// Change of a logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogitChange {
    /// Set to -∞.
    Ban,
    /// Logit bias: added.
    Bias(f32),
    /// Repetition penalty: divides positive logits, multiplies others.
    RepetitionPenalty(f32),
}

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledIndex {
    /// Its index; `None` if no entry is left.
    pub index: Option<usize>,
    /// Natural log-probability under the row's scaled, unedited logits; NaN without an index.
    pub log_probability: f64,
}

impl LogitEdits {
    /// Whether nothing is edited.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_none() && self.changes.is_empty()
    }

    /// The edited logits.
    ///
    /// # Panics
    /// If an id is out of range.
    pub fn apply(&self, logits: &[f32]) -> Vec<f32> {
        let mut edited = match &self.allowed {
            Some(ids) => {
                let mut only = vec![f32::NEG_INFINITY; logits.len()];
                ids.iter().for_each(|id| only[*id as usize] = logits[*id as usize]);
                only
            }
            None => logits.to_vec(),
        };
        for (id, change) in &self.changes {
            let x = &mut edited[*id as usize];
            *x = match change {
                LogitChange::Ban => f32::NEG_INFINITY,
                LogitChange::Bias(more) => *x + more,
                LogitChange::RepetitionPenalty(by) if *x > 0.0 => *x / by,
                LogitChange::RepetitionPenalty(by) => *x * by,
            };
        }
        edited
    }
}

impl RowSampling {
    /// Number of draws.
    #[cfg(device)]
    pub(crate) fn draws(&self) -> usize {
        match &self.mode {
            SamplingMode::Greedy => 1,
            SamplingMode::Random(uniforms, _) => uniforms.len(),
        }
    }
}

/// Samples from rows of logits on their device; only the draws are transferred. A GPU gives the CPU's draws except
/// where rounding decides: summation orders agree, except for the nucleus.
///
/// # Shapes
/// `logits` (rows, vocabulary), f32; returns the draws of each request.
///
/// # Errors
/// A row or an id is out of range, a scale is not above 0, or the logits are not contiguous f32.
pub fn draw(logits: &Tensor, requests: &[RowSampling]) -> Result<Vec<Vec<SampledIndex>>> {
    let (rows, vocabulary) = logits.dims2()?;
    for RowSampling { row, scale, edits, .. } in requests {
        check(*row < rows, OP, || format!("row {row} of {rows}"))?;
        check(*scale > 0.0, OP, || format!("the scale must be above 0, not {scale}"))?;
        let changed = edits.changes.iter().map(|(id, _)| id);
        let outside =
            edits.allowed.iter().flatten().chain(changed).find(|id| **id as usize >= vocabulary);
        check(outside.is_none(), OP, || {
            format!("token {} is outside a vocabulary of {vocabulary}", outside.unwrap_or(&0))
        })?;
    }
    on_device!(logits, sample::draw(logits, requests, (rows, vocabulary)));
    let logits = floats(logits, OP)?;
    let of_request = |request: &RowSampling| {
        let row = &logits[request.row * vocabulary..(request.row + 1) * vocabulary];
        sampled(row, request)
    };
    Ok(requests.iter().map(of_request).collect())
}

fn sampled(row: &[f32], request: &RowSampling) -> Vec<SampledIndex> {
    let raw = Scan::new(row, request.scale);
    let edited = (!request.edits.is_empty()).then(|| request.edits.apply(row));
    let edited = edited.as_ref().map(|edited| Scan::new(edited, request.scale));
    let scan = edited.as_ref().unwrap_or(&raw);
    let draw = |index: Option<usize>| SampledIndex {
        index,
        log_probability: index.map_or(f64::NAN, |index| raw.log_probability(index)),
    };
    match &request.mode {
        SamplingMode::Greedy => vec![draw(scan.argmax())],
        SamplingMode::Random(uniforms, to) => {
            let kept = scan.truncated(to);
            // A logit of ∞ makes all weights 0 or NaN.
            let at = |uniform: &f64| draw(kept.draw(*uniform).or_else(|| scan.argmax()));
            uniforms.iter().map(at).collect()
        }
    }
}
