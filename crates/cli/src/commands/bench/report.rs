//! The output of the model benchmarks.

use std::path::PathBuf;

use embodied_r_bench::Metrics;
use embodied_r_policy::Precision;
use serde::Serialize;

use crate::args::bench::WorkArgs;
use crate::exit::Usage;
use crate::hub;
use crate::output::outln;

/// The JSON object of a benchmark.
#[derive(Serialize)]
struct WorkReport<'a, R> {
    model: &'a str,
    dtype: &'static str,
    prompt: usize,
    new: usize,
    group_size: usize,
    groups: usize,
    #[serde(flatten)]
    result: &'a R,
}

/// Validates the arguments and resolves the model's folder.
pub(super) fn folder(work: &WorkArgs) -> anyhow::Result<PathBuf> {
    if work.runs == 0 || work.prompt == 0 || work.new == 0 || work.groups * work.group_size == 0 {
        let what = "`--runs`, `--prompt`, `--new`, `--groups` and `--group-size` must be above 0";
        return Err(Usage(what.into()).into());
    }
    Ok(hub::decoder(&work.model, None)?)
}

/// Prints `result`: as JSON, or as a heading and its `metrics`.
pub(super) fn print(
    work: &WorkArgs,
    precision: Precision,
    result: &impl Serialize,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let &WorkArgs { prompt, new, group_size, groups, .. } = work;
    if work.json {
        let (model, dtype) = (&work.model, precision.dtype());
        let report = WorkReport { model, dtype, prompt, new, group_size, groups, result };
        return Ok(outln!("{}", serde_json::to_string(&report)?)?);
    }
    outln!("{groups} prompts of {prompt} tokens, {group_size} completions each of {new}")?;
    lines(metrics)
}

/// Prints one line per metric.
pub(super) fn lines(metrics: &Metrics) -> anyhow::Result<()> {
    for (name, value) in metrics.iter() {
        outln!("{name:<28} {value:>14.3}")?;
    }
    Ok(())
}
