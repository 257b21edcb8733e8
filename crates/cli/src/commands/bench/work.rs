//! Shared by the model benchmarks: synthetic prompts and the output of metrics.

use std::path::PathBuf;

use candle_core::Device;
use embodied_r_grpo::estimate::peak_memory;
use embodied_r_kernels::device;
use embodied_r_policy::{GenerationRequest, Precision, SamplingParams};
use embodied_r_random::stream;
use serde_json::{Value, json};

use crate::args::bench::WorkArgs;
use crate::exit::{Status, Usage};
use crate::hub;
use crate::output::outln;

/// Validates the arguments and resolves the model's folder.
pub(super) fn folder(work: &WorkArgs) -> anyhow::Result<PathBuf> {
    if work.runs == 0 || work.prompt == 0 || work.new == 0 || work.groups * work.group_size == 0 {
        let what = "`--runs`, `--prompt`, `--new`, `--groups` and `--group-size` must be above 0";
        return Err(Usage(what.into()).into());
    }
    Ok(hub::decoder(&work.model, None)?)
}

/// Random prompts for a vocabulary of `vocabulary` tokens.
pub(super) fn requests(work: &WorkArgs, vocabulary: usize, run: usize) -> Vec<GenerationRequest> {
    let request = |group: usize| {
        let seed = |i: usize| stream(&[run as u64, group as u64, i as u64]);
        let prompt: Vec<u32> =
            (0..work.prompt).map(|i| (seed(i) % vocabulary as u64) as u32).collect();
        GenerationRequest {
            prompt: prompt.into(),
            samples: work.group_size,
            stream: seed(work.prompt),
            first_sample: 0,
        }
    };
    (0..work.groups).map(request).collect()
}

/// Samples `new` tokens without stop tokens.
pub(super) fn sampling(new: usize) -> SamplingParams {
    SamplingParams { max_new_tokens: new, ..SamplingParams::default() }
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints metrics, and lists with one value per rank.
pub(super) fn print(
    work: &WorkArgs,
    (device, precision): (&Device, Precision),
    metrics: &[(&str, f64)],
    per_rank: &[(&str, Vec<Value>)],
) -> anyhow::Result<Status> {
    let metrics = with_peak(metrics, device)?;
    if work.json {
        let mut all = json!({
            "model": work.model,
            "dtype": precision.dtype(),
            "prompt": work.prompt,
            "new": work.new,
            "group_size": work.group_size,
            "groups": work.groups,
        });
        add(&mut all, &metrics);
        for (name, values) in per_rank {
            all[*name] = json!(values);
        }
        outln!("{all}")?;
        return Ok(Status::Done);
    }
    outln!(
        "{} prompts of {} tokens, {} completions each of {}",
        work.groups,
        work.prompt,
        work.group_size,
        work.new
    )?;
    lines(&metrics)?;
    for (name, values) in per_rank {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        outln!("{name:<28} {:>14}", values.join(" "))?;
    }
    Ok(Status::Done)
}

/// The metrics with the peak memory of the process, and of its GPU if it has one.
pub(super) fn with_peak<'a>(
    metrics: &[(&'a str, f64)],
    device: &Device,
) -> anyhow::Result<Vec<(&'a str, f64)>> {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let peak = peak_memory::peak_bytes().map(|bytes| ("peak_memory_gb", gb(bytes)));
    let on_device = device::memory(device)?;
    let on_device = on_device.map(|memory| ("peak_device_memory_gb", gb(memory.peak_bytes)));
    Ok(metrics.iter().copied().chain(peak).chain(on_device).collect())
}

/// Adds metrics to an object, rounded to six decimals.
pub(super) fn add(object: &mut Value, metrics: &[(&str, f64)]) {
    for (name, value) in metrics {
        object[*name] = rounded(*value);
    }
}

pub(super) fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}

/// Prints one line per metric.
pub(super) fn lines(metrics: &[(&str, f64)]) -> anyhow::Result<Status> {
    for (name, value) in metrics {
        outln!("{name:<28} {value:>14.3}")?;
    }
    Ok(Status::Done)
}
