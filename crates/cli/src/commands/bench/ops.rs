//! `embodied-r bench ops`: kernel throughput compared with the machine's roofline.

mod attention;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
mod device;
mod measure;
mod op;
mod products;
mod rows;
mod training;

use std::time::Instant;

use embodied_r_data::Progress as _;
use serde_json::json;

use self::measure::{Machine, best_seconds, measure};
use self::op::{Op, selected};
use crate::args::bench::OpsArgs;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use crate::args::device::DeviceName;
use crate::exit::Status;
use crate::output::outln;
use crate::progress::Bar;

/// Maximum calls of a repetition.
const MAX_CALLS: usize = 1_000_000;

/// All operations with their benchmarked shapes.
fn table() -> Vec<Op> {
    [products::ops(), attention::ops(), rows::ops(), training::ops()]
        .into_iter()
        .flatten()
        .collect()
}

/// Measures or checks the operations.
pub(super) fn run(args: &OpsArgs) -> anyhow::Result<Status> {
    #[cfg_attr(
        not(any(feature = "cuda", feature = "cuda-host")),
        expect(unused_variables, reason = "a build without GPU kernels opens the CPU only")
    )]
    let device = crate::device::open(args.device)?;
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    if args.device == DeviceName::Cuda {
        return match args.check {
            true => device::check(args, &device),
            false => device::measure(args, &device),
        };
    }
    let ops = selected(table(), args)?;
    if args.check { check(&ops, args) } else { measure(&ops, args, &Machine::cpu(), seconds) }
}

/// The best time of one call, on the CPU.
fn seconds(op: &Op) -> anyhow::Result<f64> {
    let mut call = op.prepare()?.run;
    best_seconds(&mut || Ok(call().map(drop)?), MAX_CALLS, |act| {
        let began = Instant::now();
        act()?;
        Ok(began.elapsed())
    })
}

/// Compares each operation with its f64 reference implementation.
fn check(ops: &[Op], args: &OpsArgs) -> anyhow::Result<Status> {
    let bar = Bar::default();
    bar.start("checking", Some(ops.len() as u64));
    let (mut checked, mut failed) = (Vec::new(), 0);
    for op in ops {
        bar.message(op.name);
        let deviation = op.deviation()?;
        // NaN does not pass.
        let holds = deviation <= op.tolerance;
        failed += usize::from(!holds);
        if args.json {
            checked.push(json!({
                "name": op.name, "shape": op.shape, "dtype": op.dtype,
                "deviation": deviation, "tolerance": op.tolerance, "holds": holds,
            }));
        } else {
            let (name, shape, tolerance) = (op.name, &op.shape, op.tolerance);
            let result = if holds { "ok" } else { "FAILED" };
            outln!("{name:<28} {shape:<26} {deviation:>9.2e} of {tolerance:>7.0e} {result}")?;
        }
        bar.advance(1);
    }
    bar.finish();
    if args.json {
        outln!("{}", json!({ "ops": checked }))?;
    }
    Ok(if failed == 0 { Status::Done } else { Status::Partial })
}
