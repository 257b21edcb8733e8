//! One module per command: resolves arguments to settings and calls the libraries.

mod ask;
mod bench;
mod benchmarks;
mod chat;
mod completions;
mod doctor;
mod eval;
mod filter;
mod infer;
mod inspect;
mod keyframes;
mod man;
mod merge;
mod perceive;
mod plan;
mod preprocess;
mod quickstart;
mod report;
mod rewards;
mod robot;
mod runs;
mod serve;
mod settings;
mod sft;
mod show;
mod sim;
mod train;

use std::ffi::OsString;

use crate::args::{self, Cli, Command};
use crate::exit::Status;
use crate::terminal;

/// Runs the parsed command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Status> {
    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let logs = logs.fmt_fields(terminal::log_fields());
    logs.with_ansi(terminal::has_colors(&std::io::stderr())).init();
    dispatch(cli.command)
}

/// Runs a command line in this process; `words` are the arguments after `embodied-r`.
fn run_words(words: Vec<OsString>) -> anyhow::Result<Status> {
    dispatch(args::try_parse_from(std::iter::once("embodied-r".into()).chain(words))?.command)
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
        Command::Benchmarks(args) => benchmarks::run(args),
        Command::Infer(args) => infer::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Ask(args) => ask::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Quickstart(args) => quickstart::run(args, run_words),
        Command::Filter(args) => filter::run(args),
        Command::Robot(args) => robot::run(args),
        Command::Settings(args) => settings::run(args),
        Command::Runs(args) => runs::run(args),
        Command::Show(args) => show::run(args),
        Command::Report(args) => report::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}
