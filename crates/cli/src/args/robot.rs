//! Options of `embodied-r robot`.

pub(crate) mod bench;
pub(crate) mod questions;

use clap::Subcommand;

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
