//! Options of `embodied-r robot`.

pub(crate) mod bench;
pub(crate) mod questions;

use clap::{ArgMatches, Command, Subcommand};

/// Make questions from robot demonstrations, and score open answers about robot scenes.
#[derive(Debug, clap::Args)]
pub(crate) struct RobotArgs {
    #[command(subcommand)]
    pub(crate) command: RobotCommand,
}

/// Subcommands of `robot`.
#[derive(Debug, Subcommand)]
pub(crate) enum RobotCommand {
    Questions(Box<questions::QuestionsArgs>),
    Bench(Box<bench::BenchArgs>),
}

/// Checks the options of a subcommand.
///
/// # Errors
/// Some contradict each other.
pub(super) fn check(matches: &ArgMatches, command: &mut Command) -> Result<(), clap::Error> {
    if let Some(("bench", matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand_mut("bench")
    {
        bench::check(matches, command)?;
    }
    Ok(())
}
