//! Times operations, and compares them with the peak rates of the machine.

use std::time::Duration;

use embodied_r_data::Progress as _;
use embodied_r_kernels::peak::Peak;
use serde_json::{Value, json};

use super::op::Op;
use crate::args::bench::OpsArgs;
use crate::exit::Status;
use crate::output::outln;
use crate::progress::Bar;

/// Minimum time of a repetition; short operations are called many times in it.
const REPETITION: Duration = Duration::from_millis(100);

/// Repetitions; the best one counts.
const REPETITIONS: usize = 3;

/// What the operations run on.
pub(super) struct Machine {
    pub(super) heading: String,
    pub(super) json: Value,
    /// `None` if they are unknown.
    pub(super) peaks: Option<Peaks>,
}

/// Peak rates that bound an operation.
#[derive(Clone, Copy)]
pub(super) struct Peaks {
    pub(super) f32_flops_per_s: f64,
    /// With bf16 or quantized weights.
    pub(super) bf16_flops_per_s: f64,
    pub(super) bytes_per_s: f64,
}

impl Machine {
    pub(super) fn cpu() -> Self {
        let peak = Peak::measure();
        let threads = rayon::current_num_threads();
        let (flops, read) = (peak.flops_per_s / 1e9, peak.read_bytes_per_s / 1e9);
        let copy = peak.copy_bytes_per_s / 1e9;
        Self {
            heading: format!(
                "{threads} threads, peak: {flops:.1} GFLOP/s in f32, {read:.1} GB/s read, {copy:.1} GB/s copy"
            ),
            json: json!({
                "threads": threads,
                "peak_gflops_f32": rounded(flops),
                "read_gb_per_s": rounded(read),
                "copy_gb_per_s": rounded(copy),
            }),
            peaks: Some(Peaks {
                f32_flops_per_s: peak.flops_per_s,
                bf16_flops_per_s: peak.flops_per_s,
                bytes_per_s: peak.bytes_per_s(),
            }),
        }
    }
}

/// Times operations by `seconds`, the best time of one call.
pub(super) fn measure(
    ops: &[Op],
    args: &OpsArgs,
    machine: &Machine,
    seconds: impl Fn(&Op) -> anyhow::Result<f64>,
) -> anyhow::Result<Status> {
    if !args.json {
        outln!("{}", machine.heading)?;
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
    }
    let bar = Bar::default();
    bar.start("measuring", Some(ops.len() as u64));
    let mut measured = Vec::new();
    for op in ops {
        bar.message(op.name);
        let metrics = Measurement::of(op, seconds(op)?, machine.peaks);
        if args.json {
            measured.push(metrics.json(op));
        } else {
            metrics.print(op)?;
        }
        bar.advance(1);
    }
    bar.finish();
    if args.json {
        outln!("{}", json!({ "machine": machine.json, "ops": measured }))?;
    }
    Ok(Status::Done)
}

/// The best time of one `call`, by `timed`, the time that at most `most` calls take.
pub(super) fn best_seconds(
    call: &mut dyn FnMut() -> anyhow::Result<()>,
    most: usize,
    timed: impl Fn(&mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration>,
) -> anyhow::Result<f64> {
    let once = timed(call)?.as_secs_f64().max(1e-9);
    let calls = (REPETITION.as_secs_f64() / once).ceil().clamp(1.0, most as f64) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let took = timed(&mut || (0..calls).try_for_each(|_| call()))?;
        best = best.min(took.as_secs_f64() / calls as f64);
    }
    Ok(best)
}

/// Measured performance. Small operations hit the CPU caches and can exceed the roofline.
struct Measurement {
    seconds: f64,
    gflops: Option<f64>,
    gb_per_s: f64,
    /// `None` without known peaks, as the next.
    bound: Option<&'static str>,
    share_of_limit: Option<f64>,
}

impl Measurement {
    fn of(op: &Op, seconds: f64, peaks: Option<Peaks>) -> Self {
        let limits = peaks.map(|peaks| {
            let flops_per_s = match op.dtype {
                "float32" => peaks.f32_flops_per_s,
                _ => peaks.bf16_flops_per_s,
            };
            (op.flops / flops_per_s, op.bytes / peaks.bytes_per_s)
        });
        let bound = |(computing, moving)| if computing > moving { "compute" } else { "memory" };
        Self {
            seconds,
            gflops: (op.flops > 0.0).then_some(op.flops / seconds / 1e9),
            gb_per_s: op.bytes / seconds / 1e9,
            bound: limits.map(bound),
            share_of_limit: limits.map(|(computing, moving)| computing.max(moving) / seconds),
        }
    }

    fn json(&self, op: &Op) -> Value {
        let mut object = json!({
            "name": op.name,
            "shape": op.shape,
            "dtype": op.dtype,
            "seconds": self.seconds,
        });
        if let Some(gflops) = self.gflops {
            object["gflops"] = json!(rounded(gflops));
        }
        object["gb_per_s"] = json!(rounded(self.gb_per_s));
        object["bound"] = json!(self.bound);
        object["share_of_limit"] = json!(self.share_of_limit.map(rounded));
        object
    }

    fn print(&self, op: &Op) -> anyhow::Result<()> {
        let gflops = self.gflops.map_or("–".to_owned(), |gflops| format!("{gflops:.1}"));
        let Self { seconds, gb_per_s, share_of_limit, .. } = self;
        let ms = seconds * 1e3;
        let share =
            share_of_limit.map_or("–".to_owned(), |share| format!("{:.0}%", share * 100.0));
        let (name, shape, dtype) = (op.name, &op.shape, op.dtype);
        Ok(outln!(
            "{name:<24} {dtype:<9} {shape:<24} {ms:>10.4} {gflops:>9} {gb_per_s:>8.2} {share:>6}"
        )?)
    }
}

pub(super) fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}
