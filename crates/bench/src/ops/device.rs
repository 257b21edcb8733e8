//! GPU kernels: their times, and their checks against the CPU implementations.

mod table;

use std::rc::Rc;

use candle_core::Device;
use embodied_r_kernels::check::{ActivationDtype, Case, cases, cases_and_model_sizes};
use embodied_r_kernels::{Result, device};
pub(super) use table::{ops, peak_ops};

use super::Caches;
use super::checked::{Check, Checked};
use super::measured::best_seconds;
use super::op::Op;

/// Maximum calls of a repetition, whose launches are queued.
const MAX_CALLS: usize = 1_000;

/// Inputs rotate over this multiple of the L2 cache.
const COLD_CACHES: f64 = 3.0;

/// The best time of one call on the device, by CUDA events on a GPU.
pub(super) fn seconds(op: &Op, device: &Device, caches: Caches) -> Result<f64> {
    let l2 = match caches {
        Caches::Warm => 0,
        Caches::Cold => device::l2_cache_bytes(device)?.unwrap_or_default(),
    };
    let inputs = (COLD_CACHES * l2 as f64 / op.bytes).ceil().clamp(1.0, MAX_CALLS as f64) as usize;
    let prepared = (0..inputs).map(|_| Ok(op.prepare()?.run)).collect::<Result<Vec<_>>>();
    let (mut runs, mut next) = (prepared?, 0);
    let mut call = || {
        next = (next + 1) % runs.len();
        runs[next]().map(drop)
    };
    // Choices of algorithms are cached, and memory is allocated.
    call()?;
    best_seconds(&mut call, MAX_CALLS, |act| device::timed(device, act))
}

/// Comparisons of each operation on the device, in f32 and in bf16, with the CPU.
pub(super) fn checks(device: &Device) -> Vec<Check<'_>> {
    let dtypes = [(ActivationDtype::F32, "float32"), (ActivationDtype::Bf16, "bfloat16")];
    let check = |case: Rc<Case>, (held, dtype): (ActivationDtype, &'static str)| -> Check<'_> {
        let name = case.op;
        let check = move || {
            let results = case.compare(device, held)?;
            Ok(results.iter().map(|result| Checked::of_case(&case, dtype, result)).collect())
        };
        (name, Box::new(check))
    };
    let both = |case| {
        let case = Rc::new(case);
        dtypes.map(|dtype| check(Rc::clone(&case), dtype))
    };
    // The emulation is too slow for a model's sizes.
    let cases = if device.is_cpu() { cases() } else { cases_and_model_sizes() };
    cases.into_iter().flat_map(both).collect()
}
