//! One module a command: from arguments to settings, then to the libraries.

mod ask;
mod bench;
mod chat;
mod doctor;
mod eval;
mod filter;
mod infer;
mod inspect;
mod keyframes;
mod merge;
mod perceive;
mod plan;
mod preprocess;
mod quickstart;
mod report;
mod rewards;
mod runs;
mod serve;
mod sft;
mod show;
mod sim;
mod train;

use std::ffi::OsString;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::exit::Status;

/// Runs the command that was typed.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Status> {
    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    dispatch(cli.command)
}

/// Runs a command given as words, as if they had been typed behind `embodied-r`.
pub(crate) fn run_words(words: Vec<OsString>) -> anyhow::Result<Status> {
    dispatch(Cli::try_parse_from(std::iter::once("embodied-r".into()).chain(words))?.command)
}

fn dispatch(command: Command) -> anyhow::Result<Status> {
    match command {
        Command::Preprocess(args) => preprocess::run(args),
        Command::Keyframes(args) => keyframes::run(args),
        Command::Perceive(args) => perceive::run(*args),
        Command::Rewards(args) => rewards::run(args),
        Command::Sft(args) => sft::run(args),
        Command::Train(args) => train::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Infer(args) => infer::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Ask(args) => ask::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Quickstart(args) => quickstart::run(args),
        Command::Filter(args) => filter::run(args),
        Command::Runs(args) => runs::run(args),
        Command::Show(args) => show::run(args),
        Command::Report(args) => report::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Bench(args) => bench::run(args),
    }
}
