//! GPU kernels: their times, and their checks against the CPU implementations.

mod table;

use std::rc::Rc;

use candle_core::Device;
use embodied_r_kernels::check::{ActivationDtype, Case, cases};
use embodied_r_kernels::{Result, device};
pub(super) use table::ops;

use super::checked::{Check, Checked};
use super::measured::best_seconds;
use super::op::Op;

/// Maximum calls of a repetition, whose launches are queued.
const MAX_CALLS: usize = 1_000;

/// The best time of one call on the device, by CUDA events on a GPU.
pub(super) fn seconds(op: &Op, device: &Device) -> Result<f64> {
    let mut call = op.prepare()?.run;
    // Choices of algorithms are cached, and memory is allocated.
    call()?;
    best_seconds(&mut || call().map(drop), MAX_CALLS, |act| device::timed(device, act))
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
    cases().into_iter().flat_map(both).collect()
}
