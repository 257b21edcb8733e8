//! `embodied-r bench ops`: each operation beside what the machine can do.

mod attention;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
mod device;
mod op;
mod products;
mod rows;
mod training;

use std::time::{Duration, Instant};

use embodied_r_data::Progress as _;
use embodied_r_kernels::peak::Peak;
use serde_json::{Value, json};

use self::op::Op;
use crate::args::bench::OpsArgs;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use crate::args::device::DeviceName;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// Least time of a repetition; the shortest operations are done many times in it.
const REPETITION: Duration = Duration::from_millis(100);

/// Repetitions, of which the best counts.
const REPETITIONS: usize = 3;

/// All operations, each at the shapes that matter.
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
        expect(
            unused_variables,
            reason = "a build without GPU operations opens the processor alone"
        )
    )]
    let device = crate::device::open(args.device)?;
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    if args.device == DeviceName::Cuda {
        return device::check(args, &device);
    }
    let wanted = |op: &Op| args.only.as_deref().is_none_or(|part| op.name.contains(part));
    let ops: Vec<Op> = table().into_iter().filter(wanted).collect();
    if ops.is_empty() {
        let part = args.only.as_deref().unwrap_or_default();
        return Err(Usage(format!("no operation has `{part}` in its name")).into());
    }
    if args.check { check(&ops, args) } else { measure(&ops, args) }
}

fn measure(ops: &[Op], args: &OpsArgs) -> anyhow::Result<Status> {
    let peak = Peak::measure();
    let threads = rayon::current_num_threads();
    if !args.json {
        let (flops, read) = (peak.flops_per_s / 1e9, peak.read_bytes_per_s / 1e9);
        let copy = peak.copy_bytes_per_s / 1e9;
        outln!(
            "{threads} threads: {flops:.1} GFLOP/s in f32, {read:.1} GB/s read, {copy:.1} copied"
        )?;
        outln!(
            "{:<24} {:<9} {:<24} {:>10} {:>9} {:>8} {:>6}",
            "operation",
            "dtype",
            "shape",
            "ms",
            "GFLOP/s",
            "GB/s",
            "share"
        )?;
    }
    let bar = Bar::default();
    bar.start("measuring", Some(ops.len() as u64));
    let mut measured = Vec::new();
    for op in ops {
        bar.message(op.name);
        let figures = Figures::of(op, seconds(op)?, &peak);
        if args.json {
            measured.push(figures.json(op));
        } else {
            figures.print(op)?;
        }
        bar.advance(1);
    }
    bar.finish();
    if args.json {
        let machine = json!({
            "threads": threads,
            "peak_gflops_f32": rounded(peak.flops_per_s / 1e9),
            "read_gb_per_s": rounded(peak.read_bytes_per_s / 1e9),
            "copy_gb_per_s": rounded(peak.copy_bytes_per_s / 1e9),
        });
        outln!("{}", json!({ "machine": machine, "ops": measured }))?;
    }
    Ok(Status::Done)
}

/// The best time of one call.
fn seconds(op: &Op) -> anyhow::Result<f64> {
    let mut call = op.prepare()?.run;
    let began = Instant::now();
    call()?;
    let once = began.elapsed().as_secs_f64().max(1e-9);
    let calls = (REPETITION.as_secs_f64() / once).ceil().clamp(1.0, 1e6) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let began = Instant::now();
        for _ in 0..calls {
            std::hint::black_box(call()?);
        }
        best = best.min(began.elapsed().as_secs_f64() / calls as f64);
    }
    Ok(best)
}

/// What was reached. What lies in caches is read faster than from memory, so that a share of the
/// limit can be above 1 for small operations.
struct Figures {
    seconds: f64,
    gflops: Option<f64>,
    gb_per_s: f64,
    bound: &'static str,
    share_of_limit: f64,
}

impl Figures {
    fn of(op: &Op, seconds: f64, peak: &Peak) -> Self {
        let computing = op.flops / peak.flops_per_s;
        let moving = op.bytes / peak.bytes_per_s();
        Self {
            seconds,
            gflops: (op.flops > 0.0).then_some(op.flops / seconds / 1e9),
            gb_per_s: op.bytes / seconds / 1e9,
            bound: if computing > moving { "compute" } else { "memory" },
            share_of_limit: computing.max(moving) / seconds,
        }
    }

    fn json(&self, op: &Op) -> Value {
        let mut told = json!({
            "name": op.name,
            "shape": op.shape,
            "dtype": op.dtype,
            "seconds": self.seconds,
        });
        if let Some(gflops) = self.gflops {
            told["gflops"] = json!(rounded(gflops));
        }
        told["gb_per_s"] = json!(rounded(self.gb_per_s));
        told["bound"] = json!(self.bound);
        told["share_of_limit"] = json!(rounded(self.share_of_limit));
        told
    }

    fn print(&self, op: &Op) -> anyhow::Result<()> {
        let gflops = self.gflops.map_or("–".to_owned(), |gflops| format!("{gflops:.1}"));
        let Self { seconds, gb_per_s, share_of_limit, .. } = self;
        let (ms, share) = (seconds * 1e3, share_of_limit * 100.0);
        let (name, shape, dtype) = (op.name, &op.shape, op.dtype);
        Ok(outln!(
            "{name:<24} {dtype:<9} {shape:<24} {ms:>10.4} {gflops:>9} {gb_per_s:>8.2} {share:>5.0}%"
        )?)
    }
}

fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

/// Holds each operation against its plain form.
fn check(ops: &[Op], args: &OpsArgs) -> anyhow::Result<Status> {
    let bar = Bar::default();
    bar.start("checking", Some(ops.len() as u64));
    let (mut checked, mut beyond) = (Vec::new(), 0);
    for op in ops {
        bar.message(op.name);
        let deviation = op.deviation()?;
        // What is no number is no match either.
        let holds = deviation <= op.tolerance;
        beyond += usize::from(!holds);
        if args.json {
            checked.push(json!({
                "name": op.name, "shape": op.shape, "dtype": op.dtype,
                "deviation": deviation, "tolerance": op.tolerance, "holds": holds,
            }));
        } else {
            let (name, shape, tolerance) = (op.name, &op.shape, op.tolerance);
            let verdict = if holds { "ok" } else { "BEYOND" };
            outln!("{name:<28} {shape:<26} {deviation:>9.2e} of {tolerance:>7.0e} {verdict}")?;
        }
        bar.advance(1);
    }
    bar.finish();
    if args.json {
        outln!("{}", json!({ "ops": checked }))?;
    }
    Ok(if beyond == 0 { Status::Done } else { Status::Partial })
}
