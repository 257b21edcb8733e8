//! Single calls and operations.

use embodied_r_data::progress::Silent;
use embodied_r_kernels::device;

use super::Options;
use super::facts::Facts;
use crate::error::Result;
use crate::ops::{Caches, Checked, Checks, Measured, Suite, Target};

/// The operations of a rehearsal.
const FEW: &str = "rms_norm";

/// See [`crate::gpu::Step::Latency`].
pub(super) fn latency(options: &Options<'_>, facts: &mut Facts<'_>) -> Result<()> {
    if let Some(memory) = device::memory(options.device)? {
        facts.text("device", memory.name)?;
        facts.measured("memory", memory.total_bytes as f64 / 1e9, "GB")?;
        facts.measured("free memory", memory.free_bytes as f64 / 1e9, "GB")?;
    }
    if let Some(bytes) = device::l2_cache_bytes(options.device)? {
        facts.measured("L2 cache", bytes as f64 / 1e6, "MB")?;
    }
    for device::Latency { call, host, device } in device::latencies(options.device)? {
        facts.measured(format!("{call}, host"), host.as_secs_f64() * 1e6, "µs")?;
        facts.measured(format!("{call}, device"), device.as_secs_f64() * 1e6, "µs")?;
    }
    if options.is_small {
        return Ok(());
    }
    measure(Suite::of_peaks(options.device)?, facts)
}

/// See [`crate::gpu::Step::Cold`].
pub(super) fn cold(options: &Options<'_>, facts: &mut Facts<'_>) -> Result<()> {
    let only = options.is_small.then_some(FEW);
    measure(Suite::new(target(options), only, Caches::Cold)?, facts)
}

/// Times a suite: FLOP/s of products, bytes per second of the rest, and the share of the peak.
fn measure(suite: Suite, facts: &mut Facts<'_>) -> Result<()> {
    suite.measure(&Silent, |measured| {
        let Measured { name, shape, dtype, seconds, gflops, gb_per_s, share_of_limit, bound } =
            measured;
        let of = |what: &str| format!("{name} {shape} {dtype}{what}");
        facts.measured(of(""), seconds * 1e6, "µs")?;
        match (bound, gflops) {
            (Some("compute"), Some(gflops)) => {
                facts.measured(of(", rate"), gflops / 1e3, "TFLOP/s")
            }
            _ => facts.measured(of(", rate"), *gb_per_s, "GB/s"),
        }?;
        match share_of_limit {
            Some(share) => facts.measured(of(", share of the peak"), *share, ""),
            None => Ok(()),
        }
    })?;
    Ok(())
}

/// See [`crate::gpu::Step::Check`].
pub(super) fn check(options: &Options<'_>, facts: &mut Facts<'_>) -> Result<()> {
    let target = target(options);
    let checks = Checks::new(&target, options.is_small.then_some(FEW))?;
    checks.run(&Silent, |checked| {
        let Checked { name, shape, dtype, result, deviation, tolerance, .. } = checked;
        let fact = format!("{name}, {shape}, {dtype}, {}", result.unwrap_or_default());
        facts.bounded(fact, *deviation, *tolerance)
    })?;
    Ok(())
}

fn target(options: &Options<'_>) -> Target {
    Target::Device(options.device.clone())
}
