//! Draws from rows of logits, where the rows are.

use candle_core::Tensor;

use super::{Scan, Truncation};
use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::floats;

const OP: &str = "sample";

/// What is drawn from a row of logits.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The row.
    pub row: usize,
    /// What the logits are multiplied by: above 0.
    pub scale: f64,
    /// What becomes of the logits first.
    pub edits: Edits,
    /// How it is drawn.
    pub pick: Pick,
}

/// How entries are drawn.
#[derive(Debug, Clone)]
pub enum Pick {
    /// The largest, the first of equal ones.
    Largest,
    /// One among those that the truncation leaves for each of these numbers in [0, 1), as
    /// [`super::Kept::draw`]; the largest where none has a weight.
    At(Vec<f64>, Truncation),
}

/// Changes of single logits, before they are scaled.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// All other logits become -∞; none leaves all.
    pub allowed: Option<Vec<u32>>,
    /// Changes of logits by their index. Those of one index are made in this order.
    pub changes: Vec<(u32, Change)>,
}

/// A change of a logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It becomes -∞.
    Bar,
    /// So much is added.
    Add(f32),
    /// It is divided by this if it is above 0, and multiplied otherwise.
    Penalise(f32),
}

/// An entry that was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Its index; none where no entry is left.
    pub index: Option<usize>,
    /// Its natural log-probability under the scaled logits of the row before any edit; NaN where there is none.
    pub log_probability: f64,
}

impl Edits {
    /// Whether the logits stay as they are.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_none() && self.changes.is_empty()
    }

    /// The logits with these edits.
    ///
    /// # Panics
    /// An index is not there.
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
                Change::Bar => f32::NEG_INFINITY,
                Change::Add(more) => *x + more,
                Change::Penalise(by) if *x > 0.0 => *x / by,
                Change::Penalise(by) => *x * by,
            };
        }
        edited
    }
}

impl Choice {
    /// Entries that are drawn.
    #[cfg(device)]
    pub(crate) fn draws(&self) -> usize {
        match &self.pick {
            Pick::Largest => 1,
            Pick::At(uniforms, _) => uniforms.len(),
        }
    }
}

/// Draws from rows of logits on the device where they are; the draws alone come back. On a GPU they are those of the
/// CPU but where rounding decides: sums are made in the same order, but for those of the nucleus.
///
/// # Shapes
/// `logits` (rows, vocabulary), f32; gives the draws of each choice.
///
/// # Errors
/// A row or an index is not there, a scale is not above 0, or the logits are no such tensor.
pub fn draw(logits: &Tensor, choices: &[Choice]) -> Result<Vec<Vec<Draw>>> {
    let (rows, vocabulary) = logits.dims2()?;
    for Choice { row, scale, edits, .. } in choices {
        check(*row < rows, OP, || format!("row {row} of {rows}"))?;
        check(*scale > 0.0, OP, || format!("the scale is {scale}, want a number above 0"))?;
        let changed = edits.changes.iter().map(|(id, _)| id);
        let outside =
            edits.allowed.iter().flatten().chain(changed).find(|id| **id as usize >= vocabulary);
        check(outside.is_none(), OP, || {
            format!("token {} is outside a vocabulary of {vocabulary}", outside.unwrap_or(&0))
        })?;
    }
    on_device!(logits, sample::draw(logits, choices, (rows, vocabulary)));
    let logits = floats(logits, OP)?;
    let of_choice = |choice: &Choice| {
        let row = &logits[choice.row * vocabulary..(choice.row + 1) * vocabulary];
        drawn(row, choice)
    };
    Ok(choices.iter().map(of_choice).collect())
}

fn drawn(row: &[f32], choice: &Choice) -> Vec<Draw> {
    let raw = Scan::new(row, choice.scale);
    let edited = (!choice.edits.is_empty()).then(|| choice.edits.apply(row));
    let edited = edited.as_ref().map(|edited| Scan::new(edited, choice.scale));
    let scan = edited.as_ref().unwrap_or(&raw);
    let draw = |index: Option<usize>| Draw {
        index,
        log_probability: index.map_or(f64::NAN, |index| raw.log_probability(index)),
    };
    match &choice.pick {
        Pick::Largest => vec![draw(scan.largest())],
        Pick::At(uniforms, to) => {
            let kept = scan.kept(to);
            // Beside a logit of ∞ no other has weight, nor has it one itself.
            let at = |uniform: &f64| draw(kept.draw(*uniform).or_else(|| scan.largest()));
            uniforms.iter().map(at).collect()
        }
    }
}
