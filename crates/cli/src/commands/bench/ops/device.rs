//! Checks GPU kernels against their CPU implementations, and times them.

mod table;

use candle_core::Device;
use embodied_r_data::Progress as _;
use embodied_r_grpo::estimate::roofline::GpuSpec;
use embodied_r_kernels::check::{ActivationDtype, Case, cases};
use embodied_r_kernels::device;
use serde_json::json;

use super::measure::{self, Machine, Peaks, best_seconds, rounded};
use super::op::selected;
use crate::args::bench::OpsArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// Maximum calls of a repetition, whose launches are queued.
const MAX_CALLS: usize = 1_000;

/// Times each operation on the device, by CUDA events on a GPU.
pub(super) fn measure(args: &OpsArgs, device: &Device) -> anyhow::Result<Status> {
    let ops = selected(table::ops(device), args)?;
    measure::measure(&ops, args, &machine(device)?, |op| {
        let mut call = op.prepare()?.run;
        // Choices of algorithms are cached, and memory is allocated.
        call()?;
        let mut call = || Ok(call().map(drop)?);
        best_seconds(&mut call, MAX_CALLS, |act| {
            let mut result = Ok(());
            let took = device::timed(device, || {
                result = act();
                Ok(())
            })?;
            result.map(|()| took)
        })
    })
}

/// The GPU with the rates of its data sheet.
fn machine(device: &Device) -> anyhow::Result<Machine> {
    let memory = device::memory(device)?;
    let name = memory.as_ref().map_or("emulated kernels", |memory| &memory.name).to_owned();
    let spec = memory.and_then(|memory| GpuSpec::of_gpu(&memory.name, memory.total_bytes));
    let rate = |of: fn(&GpuSpec) -> f64| spec.as_ref().map(|spec| rounded(of(spec) / 1e9));
    let (f32, bf16) = (rate(|spec| spec.f32_flops_per_s), rate(|spec| spec.flops_per_s));
    let bytes = rate(|spec| spec.bytes_per_s);
    let peaks = match &spec {
        Some(GpuSpec { flops_per_s, f32_flops_per_s, bytes_per_s, .. }) => format!(
            "peak: {:.1} TFLOP/s in bf16, {:.1} in f32, {:.0} GB/s",
            flops_per_s / 1e12,
            f32_flops_per_s / 1e12,
            bytes_per_s / 1e9
        ),
        None => "unknown peak".to_owned(),
    };
    Ok(Machine {
        heading: format!("{name}, {peaks}"),
        json: json!({
            "device": name,
            "threads": rayon::current_num_threads(),
            "peak_gflops_f32": f32,
            "peak_gflops_bf16": bf16,
            "read_gb_per_s": bytes,
            "copy_gb_per_s": bytes,
        }),
        peaks: spec.map(|spec| Peaks {
            f32_flops_per_s: spec.f32_flops_per_s,
            bf16_flops_per_s: spec.flops_per_s,
            bytes_per_s: spec.bytes_per_s,
        }),
    })
}

/// Compares each operation on the device, in f32 and in bf16, with the CPU.
pub(super) fn check(args: &OpsArgs, device: &Device) -> anyhow::Result<Status> {
    let wanted = |case: &Case| args.only.as_deref().is_none_or(|part| case.op.contains(part));
    let cases: Vec<Case> = cases().into_iter().filter(wanted).collect();
    if cases.is_empty() {
        let part = args.only.as_deref().unwrap_or_default();
        return Err(Usage(format!("no kernel name contains `{part}`")).into());
    }
    let bar = Bar::default();
    bar.start("checking", Some(2 * cases.len() as u64));
    let (mut checked, mut failed) = (Vec::new(), 0);
    for case in &cases {
        bar.message(case.op);
        for (held, dtype) in
            [(ActivationDtype::F32, "float32"), (ActivationDtype::Bf16, "bfloat16")]
        {
            for result in case.compare(device, held)? {
                let (op, shape, name) = (case.op, &case.shape, result.name);
                let (error, allowed, holds) =
                    (result.error, result.tolerance, result.within_tolerance());
                failed += usize::from(!holds);
                if args.json {
                    // JSON has no infinity.
                    checked.push(json!({
                        "name": op, "shape": shape, "dtype": dtype, "result": name,
                        "deviation": error.is_finite().then_some(error),
                        "tolerance": allowed, "holds": holds,
                    }));
                } else {
                    let status = if holds { "ok" } else { "FAILED" };
                    outln!(
                        "{op:<12} {dtype:<9} {shape:<20} {name:<20} {error:>9.2e} of {allowed:>7.0e} {status}"
                    )?;
                }
            }
            bar.advance(1);
        }
    }
    bar.finish();
    if args.json {
        outln!("{}", json!({ "ops": checked }))?;
    }
    Ok(if failed == 0 { Status::Done } else { Status::Partial })
}

#[cfg(all(test, feature = "cuda-host", not(feature = "cuda")))]
mod tests {
    use super::*;
    use crate::args::device::DeviceName;

    /// Timing needs the emulation in the whole process; `tests/tests/stub_cuda.rs` covers it.
    #[test]
    fn device_operations_are_checked() {
        let args = |only: &str| OpsArgs {
            check: true,
            device: DeviceName::Cuda,
            only: Some(only.to_owned()),
            json: false,
        };
        assert!(matches!(check(&args("rms_norm"), &Device::Cpu), Ok(Status::Done)));
        for run in [check, measure] {
            assert!(run(&args("no such"), &Device::Cpu).is_err());
        }
    }
}
