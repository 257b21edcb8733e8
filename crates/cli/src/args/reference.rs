//! Options of the commands that describe the command line: `completions` and `man`.

use std::path::PathBuf;

use clap_complete::Shell;

/// Print a shell completion script.
///
/// For bash: `embodied-r completions bash > ~/.local/share/bash-completion/completions/embodied-r`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to print the script for.
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Write manual pages of all commands.
///
/// Writes `embodied-r.1` and one page per command, such as `embodied-r-train.1`, for `man -M` or `/usr/share/man/man1`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Directory to write the pages to; created if needed.
    #[arg(value_name = "DIR", required_unless_present = "markdown")]
    pub(crate) output: Option<PathBuf>,
    /// Write the command line reference as Markdown instead.
    #[arg(long, hide = true, value_name = "FILE", conflicts_with = "output")]
    pub(crate) markdown: Option<PathBuf>,
}
