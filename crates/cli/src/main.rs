//! `embodied-r`: trains language models to reason about space in egocentric videos.

// Only this crate writes to the user; to standard output through `output`.
#![allow(clippy::print_stderr)]

mod allocator;
mod api_generator;
mod args;
mod batch_generator;
mod chat_session;
mod commands;
mod device;
mod exit;
mod hub;
mod interrupt;
mod journal;
mod output;
mod pager;
mod progress;
mod ranks;
mod reasoner;
mod reference;
mod report;
mod settings;
mod terminal;
mod video_captioner;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_freed_pages();
    exit::code(commands::run(args::parse()))
}
