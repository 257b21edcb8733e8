//! `embodied-r sim`.

mod arm;
mod conversations;
mod pretrain;

use std::io::{self, BufWriter, Write};

use anyhow::Context as _;
use embodied_r_files::write_atomic_with;
use embodied_r_sim::corpus::{Document, chat_document};
use embodied_r_sim::views::{VIEW_CATEGORIES, ViewCounts, write_views};
use embodied_r_sim::{Category, Error, RoomsOptions, rooms};
use serde_json::json;

use crate::args::sim::{CorpusArgs, RoomsArgs, SimArgs, SimCommand, ViewsArgs};
use crate::exit::{self, Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// Simulate rooms, videos, questions and training text.
pub(crate) fn run(args: SimArgs) -> anyhow::Result<Status> {
    match args.command {
        SimCommand::Rooms(args) => run_rooms(args),
        SimCommand::Views(args) => run_views(args),
        SimCommand::Corpus(args) => run_corpus(args),
        SimCommand::Pretrain(args) => pretrain::run(args),
        SimCommand::Conversations(args) => conversations::run(args),
        SimCommand::Arm(args) => arm::run(args),
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
    let ViewsArgs { output, train, val, test, seed, categories } = args;
    let categories = match categories.is_empty() {
        true => VIEW_CATEGORIES.to_vec(),
        false => categories,
    };
    let counts = ViewCounts { train, val, test };
    write_views(&output, counts, seed, &categories, &Bar::default()).map_err(advise)?;
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

fn run_corpus(args: CorpusArgs) -> anyhow::Result<Status> {
    let write = |out: &mut dyn Write| -> io::Result<()> {
        for index in 0..args.documents {
            let Document { system, context, statements, .. } = chat_document(args.seed, index);
            let mut line = json!({ "prompt": context, "completion": statements });
            if let Some(system) = system {
                line["system"] = json!(system);
            }
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    let Some(path) = &args.output else {
        let mut out = BufWriter::new(io::stdout().lock());
        return match write(&mut out) {
            // The reader closed the pipe, as `head` does.
            Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(Status::Done),
            outcome => outcome.context("cannot write to standard output").map(|()| Status::Done),
        };
    };
    write_atomic_with(path, |out| {
        write(out).map_err(embodied_r_files::Error::io("write", path.as_path()))
    })?;
    Ok(Status::Done)
}
