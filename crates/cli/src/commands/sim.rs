//! `embodied-r sim`.

mod arm;
mod conversations;

use embodied_r_sim::views::{VIEW_CATEGORIES, ViewCounts, ViewKinds, write_views};
use embodied_r_sim::{Category, Error, RoomsOptions, rooms};

use crate::args::sim::{RoomsArgs, SimArgs, SimCommand, ViewsArgs};
use crate::exit::{self, Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// Simulate rooms, videos, questions and conversations.
pub(crate) fn run(args: SimArgs) -> anyhow::Result<Status> {
    match args.command {
        SimCommand::Rooms(args) => run_rooms(args),
        SimCommand::Views(args) => run_views(args),
        SimCommand::Conversations(args) => conversations::run(args),
        SimCommand::Arm(args) => arm::run(args),
        SimCommand::Corpus(_) => Err(moved("corpus", "corpus")),
        SimCommand::Pretrain(_) => Err(moved("pretrain", "model")),
    }
}

fn run_rooms(args: RoomsArgs) -> anyhow::Result<Status> {
    let categories = match args.categories.is_empty() {
        true => Category::ALL.to_vec(),
        false => args.categories,
    };
    let options = RoomsOptions { categories, per_category: args.per_category };
    let summary =
        rooms(&args.output, args.rooms, args.seed, &options, &Bar::default()).map_err(advise)?;
    for (benchmark, count) in &summary.rooms {
        outln!("{:<26} {count:>6} rooms", benchmark.name())?;
    }
    for (category, count) in &summary.questions {
        outln!("{:<26} {count:>6} questions", category.name())?;
    }
    outln!("wrote {}", args.output.display())?;
    Ok(Status::Done)
}

fn run_views(args: ViewsArgs) -> anyhow::Result<Status> {
    let ViewsArgs { output, train, val, test, seed, categories, answers } = args;
    let kinds = match (answers.is_empty(), categories.is_empty()) {
        (false, _) => ViewKinds::Pointing(answers),
        (true, false) => ViewKinds::Choices(categories),
        (true, true) => ViewKinds::Choices(VIEW_CATEGORIES.to_vec()),
    };
    let counts = ViewCounts { train, val, test };
    write_views(&output, counts, seed, &kinds, &Bar::default()).map_err(advise)?;
    outln!("{train} questions for training, {val} for validation, {test} for testing")?;
    outln!("wrote {}", output.display())?;
    Ok(Status::Done)
}

fn advise(error: Error) -> anyhow::Error {
    match &error {
        Error::EmptyRequest { .. }
        | Error::NoViews { .. }
        | Error::ImageSize { .. }
        | Error::RepeatedTask { .. } => Usage(error.to_string()).into(),
        Error::ConflictingDemonstrations { .. } => exit::hint(
            error.to_string(),
            "`arm.json` in that directory records the settings; give another directory with `--output`",
        ),
        Error::ConflictingRooms { .. } => exit::hint(
            error.to_string(),
            "`rooms.json` in that directory records the settings; give another directory with `--output`",
        ),
        Error::FfmpegMissing { .. } => {
            exit::hint(error.to_string(), "on Debian and Ubuntu: apt-get install ffmpeg")
        }
        _ => error.into(),
    }
}

/// Says which binary has a command that was moved.
fn moved(name: &str, command: &str) -> anyhow::Error {
    exit::usage_hint(
        format!("`sim {name}` is in another binary, `embodied-r-pretrain`"),
        format!(
            "build it in a checkout with `cargo build --release -p embodied-r-pretraining`; there it is \
             `embodied-r-pretrain {command}`"
        ),
    )
}
