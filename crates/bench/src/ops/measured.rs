//! The time of an operation, compared with the peak rates of the machine.

use std::time::Duration;

use embodied_r_kernels::Result;
use serde::Serialize;

use super::decimals::{rounded, rounded_if_known};
use super::machine::Peaks;
use super::op::Op;

/// Minimum time of a repetition; short operations are called many times in it.
const REPETITION: Duration = Duration::from_millis(100);

/// Repetitions; the best one counts.
const REPETITIONS: usize = 3;

/// The best time of one `call`, by `timed`, the time that at most `most` calls take.
pub(super) fn best_seconds(
    call: &mut dyn FnMut() -> Result<()>,
    most: usize,
    timed: impl Fn(&mut dyn FnMut() -> Result<()>) -> Result<Duration>,
) -> Result<f64> {
    let once = timed(call)?.as_secs_f64().max(1e-9);
    let calls = (REPETITION.as_secs_f64() / once).ceil().clamp(1.0, most as f64) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let took = timed(&mut || (0..calls).try_for_each(|_| call()))?;
        best = best.min(took.as_secs_f64() / calls as f64);
    }
    Ok(best)
}

/// A kernel's measured performance, with rates that are serialized with four decimals. Small operations hit the CPU caches and can exceed the
/// roofline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The kernel.
    pub name: &'static str,
    /// The shape of its inputs.
    pub shape: String,
    /// Data type of the larger input.
    pub dtype: &'static str,
    /// The best time of one call.
    pub seconds: f64,
    /// GFLOP/s; `None` for pure data movement.
    #[serde(serialize_with = "rounded_if_known", skip_serializing_if = "Option::is_none")]
    pub gflops: Option<f64>,
    /// GB/s of the inputs, read once, and of the outputs, written once.
    #[serde(serialize_with = "rounded")]
    pub gb_per_s: f64,
    /// `compute` or `memory`, whichever takes longer at peak rates; `None` without known ones, as the next.
    pub bound: Option<&'static str>,
    /// That time as a share of the measured one.
    #[serde(serialize_with = "rounded_if_known")]
    pub share_of_limit: Option<f64>,
}

impl Measured {
    pub(super) fn new(op: &Op, seconds: f64, peaks: Option<Peaks>) -> Self {
        let limits = peaks.map(|peaks| {
            let flops_per_s = match op.dtype {
                "float32" => peaks.f32_flops_per_s,
                _ => peaks.bf16_flops_per_s,
            };
            (op.flops / flops_per_s, op.bytes / peaks.bytes_per_s)
        });
        let bound = |(computing, moving)| if computing > moving { "compute" } else { "memory" };
        let share = |(computing, moving): (f64, f64)| computing.max(moving) / seconds;
        Self {
            name: op.name,
            shape: op.shape.clone(),
            dtype: op.dtype,
            seconds,
            gflops: (op.flops > 0.0).then_some(op.flops / seconds / 1e9),
            gb_per_s: op.bytes / seconds / 1e9,
            bound: limits.map(bound),
            share_of_limit: limits.map(share),
        }
    }
}
