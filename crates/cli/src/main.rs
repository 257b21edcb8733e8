//! `embodied-r`: trains language models to reason about space in egocentric videos.

/// Takes the place of the standard library's macro in all modules, so that no message can control the terminal.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::message(format_args!($($text)*)) };
}

mod allocator;
mod api_generator;
mod args;
mod asked;
mod base_model;
mod batch_generator;
mod chat_session;
mod commands;
mod descriptors;
mod device;
mod direct;
mod exit;
mod hub;
mod interrupt;
mod journal;
mod media;
mod output;
mod pager;
mod progress;
mod questions;
mod ranks;
mod reasoner;
mod reference;
mod run_images;
mod settings;
mod terminal;
mod video_captioner;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::parse();
    match &cli.command {
        args::Command::Serve(_) => allocator::return_freed_pages(),
        _ => allocator::keep_freed_pages(),
    }
    exit::code(commands::run(cli))
}
