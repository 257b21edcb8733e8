//! The benchmarks by name, and the options of commands that read one in its own layout.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use embodied_r_eval::Benchmark;
use embodied_r_eval::benchmarks::{BENCHMARKS, find};

/// A benchmark whose questions are read.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct BenchmarkArgs {
    /// Benchmark that `--data` has in its own layout: its folder, or its annotation file (`embodied-r benchmarks`).
    #[arg(long, value_name = "NAME", value_parser = benchmark(), hide_possible_values = true)]
    pub(crate) benchmark: Option<&'static Benchmark>,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
}

/// The prompt of a benchmark's questions.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PromptArgs {
    /// Prompt of the benchmark's questions, as `embodied-r benchmarks` lists them: `official`, `easi` (VLMEvalKit's) or
    /// `embodied-r`, which asks for reasoning and an answer in tags [default: with `--direct` the benchmark's first one,
    /// else `embodied-r`].
    #[arg(long, value_name = "NAME", requires = "benchmark")]
    pub(crate) prompt: Option<String>,
}

/// Parses the name of a benchmark.
pub(super) fn benchmark() -> impl TypedValueParser<Value = &'static Benchmark> {
    let names =
        BENCHMARKS.map(|benchmark| PossibleValue::new(benchmark.name).help(benchmark.title));
    PossibleValuesParser::new(names)
        .try_map(|name| find(&name).ok_or_else(|| format!("`{name}` is no benchmark")))
}
