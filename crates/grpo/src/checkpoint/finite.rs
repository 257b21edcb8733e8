//! Whether a model is finite, which is checked when a run starts and before anything is saved.
//!
//! The check reads every weight once, on all cores or on the device, and scores a few tokens, since finite weights may be
//! so large that logits overflow. This takes about a hundredth of the time of writing, flushing and hashing a checkpoint.

use std::path::Path;

use candle_core::Tensor;
use embodied_r_kernels::memory;

use crate::error::{Error, Result};
use crate::model::{Group, Model};
use crate::non_finite::NonFiniteModel;
use embodied_r_dist::ProcessGroup;

/// Tokens that a model is checked with.
const PROBE_TOKENS: usize = 32;

/// Checks a model that is being trained: `None` if its trained weights, and its log-probabilities of the last tokens of
/// `prompt`, are finite on all ranks. All ranks get the same result.
///
/// # Errors
/// A tensor operation fails, or a rank is lost.
pub fn non_finite<M: Model>(
    model: &M,
    prompt: &[u32],
    process_group: &ProcessGroup,
) -> Result<Option<NonFiniteModel>> {
    check(model, model.parameters(), prompt, process_group)
}

/// As [`non_finite`], for a model that was read from a folder: its frozen weights are checked too.
///
/// # Errors
/// [`Error::NonFiniteBase`], and as [`non_finite`].
pub(crate) fn check_base<M: Model>(
    model: &M,
    prompt: &[u32],
    process_group: &ProcessGroup,
) -> Result<()> {
    match check(model, model.all_tensors(), prompt, process_group)? {
        None => Ok(()),
        Some(found) => Err(Error::NonFiniteBase { found }),
    }
}

/// As [`check_base`], for the checkpoint in `path`, loaded as `model`.
///
/// # Errors
/// [`Error::NonFiniteCheckpoint`], and as [`non_finite`].
pub(crate) fn check_resumed<M: Model>(
    model: &M,
    path: &Path,
    prompt: &[u32],
    process_group: &ProcessGroup,
) -> Result<()> {
    match check(model, model.all_tensors(), prompt, process_group)? {
        None => Ok(()),
        Some(found) => Err(Error::NonFiniteCheckpoint { path: path.into(), found }),
    }
}

fn check<M: Model>(
    model: &M,
    tensors: Vec<(String, Tensor)>,
    prompt: &[u32],
    process_group: &ProcessGroup,
) -> Result<Option<NonFiniteModel>> {
    let mut own = Vec::new();
    for (name, tensor) in tensors {
        if !is_finite(&tensor)? {
            own.push(name);
        }
    }
    let computes = own.is_empty() && computes(model, prompt)?;
    let mut weights: Vec<String> = Vec::new();
    for name in process_group.all_gather(own)?.into_iter().flatten() {
        if !weights.contains(&name) {
            weights.push(name);
        }
    }
    let fails = process_group.any(!computes)?;
    Ok(fails.then_some(NonFiniteModel { weights }))
}

/// Whether the log-probability of the last token of `prompt` is finite.
fn computes<M: Model>(model: &M, prompt: &[u32]) -> Result<bool> {
    let prompt = &prompt[prompt.len().saturating_sub(PROBE_TOKENS)..];
    let Some((last, before)) = prompt.split_last().filter(|(_, before)| !before.is_empty()) else {
        return Ok(true);
    };
    let group = Group { prompt: before.to_vec().into(), completions: vec![vec![*last]] };
    Ok(model.score(&[group], 1.0)?.logps.iter().all(|logp| logp.is_finite()))
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
