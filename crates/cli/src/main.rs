//! `embodied-r`: from egocentric videos and questions to a trained spatial reasoner.

// The only crate that talks to the user; to standard output through `output`.
#![allow(clippy::print_stderr)]

mod answer;
mod args;
mod commands;
mod exit;
mod output;
mod progress;
mod report;
mod settings;

use std::process::ExitCode;

/// Keeps the pages of freed tensors, which the next ones need at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit::code(args::parse().and_then(commands::run))
}
