//! Options of `embodied-r benchmarks`.

/// List the benchmarks that `eval` knows.
///
/// For each one: the names for `--benchmark`, `--scorer`, `--prompt` and `--frames` (the first of each is the default), where its
/// data set is published, and the annotation files that `--data FOLDER` needs.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchmarksArgs {
    /// Print JSON, with published scores and what each scorer can be compared with.
    #[arg(long)]
    pub(crate) json: bool,
}
