//! The output of the model benchmarks.

use std::io;
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
pub(super) struct WorkReport<'a, R> {
    model: &'a str,
    dtype: &'static str,
    prompt: usize,
    new: usize,
    group_size: usize,
    groups: usize,
    #[serde(flatten)]
    result: R,
}

impl<'a, R> WorkReport<'a, R> {
    pub(super) fn new(work: &'a WorkArgs, precision: Precision, result: R) -> Self {
        let &WorkArgs { ref model, prompt, new, group_size, groups, .. } = work;
        Self { model, dtype: precision.dtype(), prompt, new, group_size, groups, result }
    }
}

/// A JSON object with a list that is printed line by line as it grows: what a run that is interrupted has measured is
/// there.
pub(super) struct JsonList {
    is_empty: bool,
}

impl JsonList {
    /// Prints the fields of the object `before`, and begins the list `name`.
    pub(super) fn open(before: &impl Serialize, name: &str) -> io::Result<Self> {
        outln!("{{{}\"{name}\":[", fields(before, "", ",")?)?;
        Ok(Self { is_empty: true })
    }

    /// Prints an element, on a line of its own.
    pub(super) fn push(&mut self, element: &impl Serialize) -> io::Result<()> {
        // At the start of the line, so that the line is complete at once.
        let separator = if std::mem::replace(&mut self.is_empty, false) { "" } else { "," };
        outln!("{separator}{}", serde_json::to_string(element)?)
    }

    /// Ends the list, and prints the fields of the object `after`.
    pub(super) fn close(self, after: &impl Serialize) -> io::Result<()> {
        outln!("]{}}}", fields(after, ",", "")?)
    }
}

/// The fields of a JSON object between two texts, or nothing if there are none.
fn fields(object: &impl Serialize, before: &str, after: &str) -> io::Result<String> {
    let text = serde_json::to_string(object)?;
    let fields = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default();
    Ok(if fields.is_empty() { String::new() } else { format!("{before}{fields}{after}") })
}

/// Validates the arguments and resolves the model's folder.
pub(super) fn folder(work: &WorkArgs) -> anyhow::Result<PathBuf> {
    if work.runs == 0 || work.prompt == 0 || work.new == 0 || work.groups * work.group_size == 0 {
        let what = "`--runs`, `--prompt`, `--new`, `--groups` and `--group-size` must be above 0";
        return Err(Usage(what.into()).into());
    }
    Ok(hub::decoder(&work.model, None)?)
}

/// Prints a heading and the metrics.
pub(super) fn print(work: &WorkArgs, metrics: &Metrics) -> anyhow::Result<()> {
    let &WorkArgs { prompt, new, group_size, groups, .. } = work;
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
