//! `embodied-r bench ops`.

use embodied_r_bench::Error;
use embodied_r_bench::ops::{Caches, Checked, Checks, Machine, Measured, Suite, Target};
use serde_json::json;

use super::report::JsonList;
use crate::args::bench::OpsArgs;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use crate::args::device::DeviceName;
use crate::device;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// Measures or checks the operations.
pub(super) fn run(args: &OpsArgs) -> anyhow::Result<Status> {
    let target = match (args.device, device::open(args.device)?) {
        #[cfg(any(feature = "cuda", feature = "cuda-host"))]
        (DeviceName::Cuda, device) => Target::Device(device),
        _ => Target::Cpu,
    };
    match args.check {
        true => run_checks(args, &target),
        false => run_suite(args, target),
    }
}

/// Times the operations.
fn run_suite(args: &OpsArgs, target: Target) -> anyhow::Result<Status> {
    let caches = match (args.cold, &target) {
        (false, _) => Caches::Warm,
        (true, Target::Cpu) => return Err(Usage("`--cold` needs `--device cuda`".into()).into()),
        #[cfg(any(feature = "cuda", feature = "cuda-host"))]
        (true, Target::Device(_)) => Caches::Cold,
    };
    let suite = Suite::new(target, args.only.as_deref(), caches).map_err(wrong_usage)?;
    if args.json {
        let mut list = JsonList::open(&json!({ "machine": suite.machine() }), "ops")?;
        suite.measure(&Bar::default(), |measured| anyhow::Ok(list.push(measured)?))?;
        list.close(&json!({}))?;
    } else {
        outln!("{}", heading(suite.machine()))?;
        outln!(
            "{:<24} {:<9} {:<24} {:>10} {:>9} {:>8} {:>6}",
            "kernel",
            "dtype",
            "shape",
            "ms",
            "GFLOP/s",
            "GB/s",
            "peak"
        )?;
        suite.measure(&Bar::default(), print_measured)?;
    }
    Ok(Status::Done)
}

/// Compares the operations with their references.
fn run_checks(args: &OpsArgs, target: &Target) -> anyhow::Result<Status> {
    let checks = Checks::new(target, args.only.as_deref()).map_err(wrong_usage)?;
    let ops = if args.json {
        let mut list = JsonList::open(&json!({}), "ops")?;
        let ops = checks.run(&Bar::default(), |checked| anyhow::Ok(list.push(checked)?))?;
        list.close(&json!({}))?;
        ops
    } else {
        checks.run(&Bar::default(), print_checked)?
    };
    let holds = ops.iter().all(|checked| checked.holds);
    Ok(if holds { Status::Done } else { Status::Partial })
}

/// An error whose cause is the options as wrong usage.
fn wrong_usage(error: Error) -> anyhow::Error {
    match error {
        Error::NoKernel { .. } => Usage(error.to_string()).into(),
        error => error.into(),
    }
}

/// The machine and its peak rates.
fn heading(machine: &Machine) -> String {
    match machine {
        Machine::Cpu { threads, peak_gflops_f32, read_gb_per_s, copy_gb_per_s } => format!(
            "{threads} threads, peak: {peak_gflops_f32:.1} GFLOP/s in f32, {read_gb_per_s:.1} GB/s read, \
             {copy_gb_per_s:.1} GB/s copy"
        ),
        Machine::Gpu {
            device,
            peak_gflops_bf16: Some(bf16),
            peak_gflops_f32: Some(f32),
            read_gb_per_s: Some(bytes),
            ..
        } => format!(
            "{device}, peak: {:.1} TFLOP/s in bf16, {:.1} in f32, {bytes:.0} GB/s",
            bf16 / 1e3,
            f32 / 1e3
        ),
        Machine::Gpu { device, .. } => format!("{device}, unknown peak"),
    }
}

fn print_measured(measured: &Measured) -> anyhow::Result<()> {
    let Measured { name, shape, dtype, seconds, gflops, gb_per_s, share_of_limit, .. } = measured;
    let gflops = gflops.map_or("–".to_owned(), |gflops| format!("{gflops:.1}"));
    let share = share_of_limit.map_or("–".to_owned(), |share| format!("{:.0}%", share * 100.0));
    let ms = seconds * 1e3;
    Ok(outln!(
        "{name:<24} {dtype:<9} {shape:<24} {ms:>10.4} {gflops:>9} {gb_per_s:>8.2} {share:>6}"
    )?)
}

fn print_checked(checked: &Checked) -> anyhow::Result<()> {
    let Checked { name, shape, dtype, result, deviation, tolerance, holds } = checked;
    let status = if *holds { "ok" } else { "FAILED" };
    match result {
        None => outln!("{name:<28} {shape:<26} {deviation:>9.2e} of {tolerance:>7.0e} {status}")?,
        Some(result) => outln!(
            "{name:<12} {dtype:<9} {shape:<20} {result:<20} {deviation:>9.2e} of {tolerance:>7.0e} {status}"
        )?,
    }
    Ok(())
}
