//! `embodied-r`: from egocentric videos and questions to a trained spatial reasoner.

mod answer;
mod args;
mod commands;
mod exit;
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
