//! The command line: clap's types, and nothing else.

pub(crate) mod api;
pub(crate) mod ask;
pub(crate) mod bench;
pub(crate) mod benchmark;
pub(crate) mod benchmarks;
pub(crate) mod captioner;
pub(crate) mod chat;
pub(crate) mod device;
pub(crate) mod direct;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod filter;
pub(crate) mod frames;
mod groups;
pub(crate) mod infer;
pub(crate) mod inspect;
pub(crate) mod keyframes;
pub(crate) mod media;
pub(crate) mod merge;
pub(crate) mod model;
pub(crate) mod parallel;
pub(crate) mod perceive;
pub(crate) mod plan;
pub(crate) mod precision;
pub(crate) mod preprocess;
pub(crate) mod quickstart;
pub(crate) mod reasoner;
pub(crate) mod reference;
pub(crate) mod report;
pub(crate) mod rewards;
pub(crate) mod robot;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod serve;
pub(crate) mod setting_flags;
pub(crate) mod settings;
pub(crate) mod sft;
mod short_help;
pub(crate) mod show;
pub(crate) mod sim;
pub(crate) mod system_prompt;
pub(crate) mod train;
mod value;
pub(crate) mod video;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use embodied_r_grpo::settings::{GrpoSettings, SftSettings};

use crate::settings::flag_names;
use crate::terminal::escaped;
pub(crate) use groups::GROUPS;
use setting_flags::{with_python_spellings, with_setting_flags};

/// Train language models to reason about space in egocentric videos.
#[derive(Debug, Parser)]
#[command(name = "embodied-r", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Log level or filter for standard error, such as `info` or `embodied_r_grpo=debug`.
    #[arg(
        long,
        global = true,
        env = "EMBODIED_R_LOG",
        value_name = "FILTER",
        default_value = "warn",
        help_heading = "Global options",
        display_order = 1000
    )]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands. Their help is that of their options.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Preprocess(preprocess::PreprocessArgs),
    Keyframes(keyframes::KeyframesArgs),
    Perceive(Box<perceive::PerceiveArgs>),
    Rewards(rewards::RewardsArgs),
    Sft(sft::SftArgs),
    Train(train::TrainArgs),
    Plan(plan::PlanArgs),
    Eval(eval::EvalArgs),
    Benchmarks(benchmarks::BenchmarksArgs),
    Infer(infer::InferArgs),
    Serve(serve::ServeArgs),
    Ask(ask::AskArgs),
    Chat(chat::ChatArgs),
    Sim(sim::SimArgs),
    Quickstart(quickstart::QuickstartArgs),
    Filter(filter::FilterArgs),
    Robot(robot::RobotArgs),
    Settings(settings::SettingsArgs),
    Runs(runs::RunsArgs),
    Show(show::ShowArgs),
    Report(report::ReportArgs),
    Doctor(doctor::DoctorArgs),
    Merge(merge::MergeArgs),
    Inspect(inspect::InspectArgs),
    Bench(bench::BenchArgs),
    Completions(reference::CompletionsArgs),
    Man(reference::ManArgs),
}

/// The whole command line, as `--help`, completions and manual pages show it.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command()
        .mut_subcommand("perceive", perceive::with_backend_headings)
        .mut_subcommand("ask", captioner::with_old_name)
        .mut_subcommand("chat", captioner::with_old_name);
    let command = with_python_spellings(short_help::shortened(command))
        .mut_subcommand("train", |it| with_setting_flags(it, &flag_names::<GrpoSettings>()))
        .mut_subcommand("sft", |it| with_setting_flags(it, &flag_names::<SftSettings>()));
    let template = groups::help_template(&command);
    command.help_template(template)
}

/// Parses the command line; a usage error ends the process with code 2, `--help` and `--version` with code 0.
pub(crate) fn parse() -> Cli {
    try_parse_from(std::env::args_os()).unwrap_or_else(|error| {
        let is_control = |word: OsString| matches!(escaped(&word.to_string_lossy()), Cow::Owned(_));
        // A colored message would have the user's words, such as file names, as they are.
        if error.use_stderr() && std::env::args_os().any(is_control) {
            eprintln!("{}", error.to_string().trim_end());
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}

/// The options of `perceive` with their defaults.
///
/// # Errors
/// An option has no default.
pub(crate) fn perceive_args() -> Result<perceive::PerceiveArgs, clap::Error> {
    match try_parse_from(["embodied-r", "perceive"])?.command {
        Command::Perceive(args) => Ok(*args),
        _ => Err(command().error(ErrorKind::InvalidSubcommand, "the command is not `perceive`")),
    }
}

/// Parses `words`, the program's name first.
///
/// # Errors
/// As clap's: a usage error, or a request for help.
pub(crate) fn try_parse_from(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand_mut(name)
    {
        match name {
            "perceive" => perceive::check_backend(matches, command)?,
            "infer" | "eval" => {
                reasoner::check(matches, command)?;
                direct::check_server(matches, command)?;
            }
            "filter" => direct::check_server(matches, command)?,
            "robot" => robot::check(matches, command)?,
            _ => {}
        }
    }
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let given = |names: &[&'static str]| {
        let (name, matches) = matches.subcommand()?;
        Some(setting_flags::given(matches, command.find_subcommand(name)?, names))
    };
    match &mut cli.command {
        Command::Train(args) => {
            args.run.setting_flags = given(&flag_names::<GrpoSettings>()).unwrap_or_default();
        }
        Command::Sft(args) => {
            args.run.setting_flags = given(&flag_names::<SftSettings>()).unwrap_or_default();
        }
        _ => {}
    }
    Ok(cli)
}
