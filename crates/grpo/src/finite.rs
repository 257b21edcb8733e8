//! Whether a model's tensors are finite, which is checked when a run starts and before anything is saved.
//!
//! The check reads every weight once, on all cores or on the device: about a hundredth of the time that writing,
//! flushing and hashing a checkpoint takes.

use std::path::Path;

use candle_core::Tensor;
use embodied_r_kernels::memory;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::process_group::ProcessGroup;

/// Number of tensor names that a message lists.
const NAMED: usize = 3;

/// Names of the tensors in `tensors` with a non-finite value on any rank; all ranks get the same names.
///
/// # Errors
/// A tensor cannot be read, or a rank is lost.
pub(crate) fn non_finite(
    tensors: Vec<(String, Tensor)>,
    process_group: &ProcessGroup,
) -> Result<Vec<String>> {
    let mut own = Vec::new();
    for (name, tensor) in tensors {
        if !is_finite(&tensor)? {
            own.push(name);
        }
    }
    let mut names: Vec<String> = Vec::new();
    for name in process_group.all_gather(own)?.into_iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Fails if a trained weight of `model` is not finite on any rank.
///
/// # Errors
/// [`Error::NonFiniteWeights`], or a rank is lost.
pub(crate) fn check_trained<M: Model>(model: &M, process_group: &ProcessGroup) -> Result<()> {
    let weights = non_finite(model.parameters(), process_group)?;
    match weights.is_empty() {
        true => Ok(()),
        false => Err(Error::NonFiniteWeights { weights, checkpoint: None }),
    }
}

/// Fails if a weight of `model`, which was read from a folder, is not finite. Frozen weights are checked too.
///
/// # Errors
/// [`Error::NonFiniteModel`], or a rank is lost.
pub(crate) fn check_loaded<M: Model>(model: &M, process_group: &ProcessGroup) -> Result<()> {
    let weights = non_finite(model.all_tensors(), process_group)?;
    match weights.is_empty() {
        true => Ok(()),
        false => Err(Error::NonFiniteModel { weights }),
    }
}

/// Fails if a weight of the checkpoint in `path`, loaded as `model`, is not finite.
///
/// # Errors
/// [`Error::Checkpoint`], or a rank is lost.
pub(crate) fn check_resumed<M: Model>(
    model: &M,
    path: &Path,
    process_group: &ProcessGroup,
) -> Result<()> {
    check_loaded(model, process_group).map_err(|error| match error {
        Error::NonFiniteModel { weights } => {
            let names = first_names(&weights).unwrap_or_default();
            let what = format!("its weights are not finite: {names}; delete it");
            Error::Checkpoint { path: path.into(), what }
        }
        other => other,
    })
}

/// Whether every element of a tensor is finite.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool> {
    // NaN and infinity survive in a sum of squares; large finite values may overflow it.
    if memory::squared_norm(tensor).is_ok_and(f64::is_finite) {
        return Ok(true);
    }
    let tensor = memory::to_host(tensor)?;
    let values = memory::floats(&tensor, "check for non-finite values")?;
    Ok(values.iter().all(|value| value.is_finite()))
}

/// The first of `names` and the number of the others; `None` without names.
pub(crate) fn first_names(names: &[String]) -> Option<String> {
    let shown: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let more = names.len() - shown.len();
    match (shown.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown.join(", ")),
        (false, _) => Some(format!("{} and {more} more tensors", shown.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_and_infinity_are_found_anywhere_and_large_values_are_finite() {
        let with = |value: f32, at: usize| {
            let mut values = vec![0.5f32; 5000];
            values[at] = value;
            is_finite(&memory::tensor(values, 5000).unwrap()).unwrap()
        };
        for at in [0, 17, 4095, 4999] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(!with(bad, at), "{bad} at {at}");
            }
            for good in [f32::MAX, f32::MIN, 1e30, f32::MIN_POSITIVE] {
                assert!(with(good, at), "{good} at {at}");
            }
        }
    }
}
