//! Checks GPU kernels against their CPU implementations.

use candle_core::Device;
use embodied_r_data::Progress as _;
use embodied_r_kernels::check::{ActivationDtype, Case, cases};
use serde_json::json;

use crate::args::bench::OpsArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// Compares each operation on the device, in f32 and in bf16, with the CPU.
pub(super) fn check(args: &OpsArgs, device: &Device) -> anyhow::Result<Status> {
    if !args.check {
        let message = "`--device cuda` needs `--check`: GPU kernels are not timed";
        return Err(Usage(message.into()).into());
    }
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

    #[test]
    fn device_operations_are_checked_and_not_timed() {
        let only = Some("adamw".to_owned());
        let args = |check, only| OpsArgs { check, device: DeviceName::Cuda, only, json: false };
        assert!(matches!(check(&args(true, only.clone()), &Device::Cpu), Ok(Status::Done)));
        assert!(check(&args(false, only), &Device::Cpu).is_err());
        assert!(check(&args(true, Some("no such".to_owned())), &Device::Cpu).is_err());
    }
}
