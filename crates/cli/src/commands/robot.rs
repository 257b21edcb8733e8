//! `embodied-r robot`.

mod bench;
mod key_points;
mod questions;

use crate::args::robot::{RobotArgs, RobotCommand};
use crate::exit::Status;

/// Make questions from demonstrations, and score open answers.
pub(crate) fn run(args: RobotArgs) -> anyhow::Result<Status> {
    match args.command {
        RobotCommand::Questions(args) => questions::run(*args),
        RobotCommand::Bench(args) => bench::run(*args),
    }
}
