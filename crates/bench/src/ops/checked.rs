//! The result of a comparison.

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use embodied_r_kernels::check::{Case, Comparison};
use serde::Serialize;

use super::op::Op;
use crate::error::Result;

/// The name of an operation, and what compares it.
pub(super) type Check<'a> = (&'static str, Box<dyn Fn() -> Result<Vec<Checked>> + 'a>);

/// A result compared with its reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// The kernel.
    pub name: &'static str,
    /// The shape of its inputs.
    pub shape: String,
    /// Data type of the larger input.
    pub dtype: &'static str,
    /// Which of the results of a GPU's kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'static str>,
    /// Maximum error relative to the reference's largest element. JSON has `null` for an infinite one.
    pub deviation: f64,
    /// The largest allowed one.
    pub tolerance: f64,
    /// Whether it is allowed. NaN is not.
    pub holds: bool,
}

impl Checked {
    pub(super) fn of_op(op: &Op, deviation: f64) -> Self {
        let &Op { name, dtype, tolerance, .. } = op;
        let (shape, holds) = (op.shape.clone(), deviation <= tolerance);
        Self { name, shape, dtype, result: None, deviation, tolerance, holds }
    }

    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    pub(super) fn of_case(case: &Case, dtype: &'static str, result: &Comparison) -> Self {
        Self {
            name: case.op,
            shape: case.shape.clone(),
            dtype,
            result: Some(result.name),
            deviation: result.error,
            tolerance: result.tolerance,
            holds: result.within_tolerance(),
        }
    }
}
