//! `embodied-r`: from egocentric videos and questions to a trained spatial reasoner.

// The only crate that talks to the user; to standard output through `output`.
#![allow(clippy::print_stderr)]

mod allocator;
mod answer;
mod args;
mod commands;
mod device;
mod exit;
mod interrupt;
mod output;
mod perceiver;
mod progress;
mod ranks;
mod report;
mod settings;
mod speaker;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_freed_pages();
    exit::code(args::parse().and_then(commands::run))
}
