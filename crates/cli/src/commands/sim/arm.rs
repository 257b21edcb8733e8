//! `embodied-r sim arm`.

use embodied_r_sim::arm::{ArmOptions, ArmOutput, Task, write_arm};

use super::advise;
use crate::args::sim::ArmArgs;
use crate::exit::Status;
use crate::output::outln;
use crate::progress::Bar;

/// Writes demonstrations of the simulated arm, with questions for the bench.
pub(super) fn run(args: ArmArgs) -> anyhow::Result<Status> {
    let tasks = match args.tasks.is_empty() {
        true => Task::SEEN.to_vec(),
        false => args.tasks,
    };
    let options = ArmOptions {
        tasks,
        episodes: args.episodes,
        seed: args.seed,
        format: args.format.version(),
        codec: args.codec.codec(),
        image_size: args.image_size,
        bench_frames: args.bench_frames,
    };
    match write_arm(&args.output, &options, &Bar::default()).map_err(advise)? {
        ArmOutput::Written(summary) => {
            outln!("{:>7} episodes", summary.episodes)?;
            outln!("{:>7} frames", summary.frames)?;
            outln!("{:>7} questions of the bench", summary.questions)?;
            outln!("wrote {}", args.output.display())?;
        }
        ArmOutput::Unchanged => {
            outln!("`{}` has these demonstrations already", args.output.display())?;
        }
    }
    Ok(Status::Done)
}
