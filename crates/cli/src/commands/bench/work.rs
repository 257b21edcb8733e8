//! What the measurements of a model share: its prompts, and how figures are shown.

use embodied_r_grpo::random::stream;
use embodied_r_policy::{Policy, Request, Sample, Sampling, hub};
use serde_json::json;

use crate::args::bench::WorkArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;

/// The model that is measured.
pub(super) fn load(work: &WorkArgs) -> anyhow::Result<Policy> {
    if work.runs == 0 || work.prompt == 0 || work.new == 0 || work.groups * work.group_size == 0 {
        let what = "`--runs`, `--prompt`, `--new`, `--groups` and `--group-size` must be above 0";
        return Err(Usage(what.into()).into());
    }
    Ok(Policy::load(&hub::resolve(&work.model, None)?)?)
}

/// Completes random prompts, each with `new` tokens.
pub(super) fn sample(
    policy: &Policy,
    work: &WorkArgs,
    run: usize,
    new: usize,
) -> anyhow::Result<(Vec<Request>, Vec<Vec<Sample>>)> {
    let vocabulary = policy.config().vocab_size as u64;
    let requests: Vec<Request> = (0..work.groups)
        .map(|group| {
            let seed = |i: usize| stream(&[run as u64, group as u64, i as u64]);
            let prompt = (0..work.prompt).map(|i| (seed(i) % vocabulary) as u32).collect();
            Request { prompt, samples: work.group_size, stream: seed(work.prompt) }
        })
        .collect();
    let sampling = Sampling { max_new_tokens: new, ..Sampling::default() };
    let samples = policy.generate(&requests, &sampling, &|_| {})?;
    Ok((requests, samples))
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The most memory that this process has held so far, in GB, where the system tells (Linux).
fn peak_memory_gb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e9)
}

pub(super) fn print(work: &WorkArgs, figures: &[(&str, f64)]) -> anyhow::Result<Status> {
    let peak = peak_memory_gb().map(|gb| ("peak_memory_gb", gb));
    let figures: Vec<(&str, f64)> = figures.iter().copied().chain(peak).collect();
    if work.json {
        let mut all = json!({
            "model": work.model,
            "dtype": "float32",
            "prompt": work.prompt,
            "new": work.new,
            "group_size": work.group_size,
            "groups": work.groups,
        });
        for (name, value) in &figures {
            all[*name] = json!((value * 1e6).round() / 1e6);
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
    for (name, value) in figures {
        outln!("{name:<24} {value:>10.3}")?;
    }
    Ok(Status::Done)
}
