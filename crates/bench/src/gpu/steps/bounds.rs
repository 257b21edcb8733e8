//! How far a GPU's results may be from the CPU's in f32.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use embodied_r_kernels::Precision;
use serde::Deserialize;

/// The largest differences that rounding explains.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Bounds {
    /// Of log-probabilities, in nats.
    pub(super) logps: f64,
    /// Of the loss.
    pub(super) loss: f64,
    /// Of a tensor's gradient norm, relative to it.
    pub(super) grad_norm: f64,
    /// Of an update's effect on log-probabilities, in L2, relative to it.
    pub(super) update: f64,
}

/// Another order of summation in f32. AdamW's first step is the sign of the gradient, so elements whose gradient is
/// rounding alone move the other way.
const F32: Bounds = Bounds { logps: 1e-4, loss: 1e-5, grad_norm: 1e-3, update: 2e-2 };

/// A GPU's kernels round at other places than torch's.
const MARGIN: f64 = 2.0;

/// What `scripts/parity/make_bf16_bounds.py` measured.
#[derive(Deserialize)]
struct Measured {
    /// Largest differences between torch's bf16 and its f32, by model.
    models: BTreeMap<String, Bounds>,
}

static MEASURED: LazyLock<Option<Measured>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../fixtures/bf16_bounds.json")).ok());

impl Bounds {
    /// The bounds of a model in `precision`. In bf16 a multiple of the difference between torch's own bf16 and f32 on the
    /// same model and tokens.
    pub(super) fn of(model: &str, precision: Precision) -> Self {
        let measured = MEASURED.as_ref().and_then(|measured| measured.models.get(model));
        match (precision, measured) {
            (Precision::Bf16, Some(Self { logps, loss, grad_norm, update })) => Self {
                logps: MARGIN * logps,
                loss: MARGIN * loss,
                grad_norm: MARGIN * grad_norm,
                update: MARGIN * update,
            },
            _ => F32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixture_has_the_bounds_of_every_model() {
        for model in ["base", "36 layers", "36 layers, Qwen3"] {
            let bounds = Bounds::of(model, Precision::Bf16);
            assert!(bounds.logps > F32.logps && bounds.update > F32.update, "{model}: {bounds:?}");
            // Wider ones would let wrong results pass.
            assert!(bounds.logps < 1.0 && bounds.update < 1.0, "{model}: {bounds:?}");
        }
    }
}
