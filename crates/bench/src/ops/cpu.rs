//! The operations of the CPU: their table, their times and their checks.

use std::time::Instant;

use embodied_r_kernels::Result;

use super::checked::{Check, Checked};
use super::measured::best_seconds;
use super::op::Op;
use super::{attention, products, rows, training};

/// Maximum calls of a repetition.
const MAX_CALLS: usize = 1_000_000;

/// All operations with their benchmarked shapes.
pub(super) fn ops() -> Vec<Op> {
    [products::ops(), attention::ops(), rows::ops(), training::ops()]
        .into_iter()
        .flatten()
        .collect()
}

/// The best time of one call.
pub(super) fn seconds(op: &Op) -> Result<f64> {
    let mut call = op.prepare()?.run;
    best_seconds(&mut || call().map(drop), MAX_CALLS, |act| {
        let began = Instant::now();
        act()?;
        Ok(began.elapsed())
    })
}

/// Comparisons of each operation with its f64 reference.
pub(super) fn checks() -> Vec<Check<'static>> {
    let check = |op: Op| -> Check<'static> {
        (op.name, Box::new(move || Ok(vec![Checked::of_op(&op, op.deviation()?)])))
    };
    ops().into_iter().map(check).collect()
}
