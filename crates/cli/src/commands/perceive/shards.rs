//! `embodied-r perceive merge`.

use embodied_r_perception::Error;
use embodied_r_perception::perceive::{self, MergeOptions, Merged};

use super::explain;
use crate::args::perceive::MergeShardsArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// Put the outputs of shards together.
pub(super) fn merge(args: MergeShardsArgs) -> anyhow::Result<Status> {
    let options = MergeOptions {
        data_paths: args.data.data_paths,
        answers: args.data.answers,
        save_path: args.data.save_path,
        shards: args.shards,
    };
    let merged = perceive::merge(&options, &Bar::default()).map_err(|error| match error {
        Error::NoShard { .. } => Usage(error.to_string()).into(),
        other => explain(other),
    })?;
    for Merged { output, log, questions, finished, failed } in &merged {
        outln!("{}: {finished} of {questions} questions", output.display())?;
        if *failed > 0 {
            outln!("  {failed} failed in their shards")?;
        }
        outln!("  captions in {}", log.display())?;
    }
    let failed: usize = merged.iter().map(|merged| merged.failed).sum();
    if failed > 0 {
        eprintln!("hint: `perceive` without `--shard` tries the failed questions again");
    }
    Ok(if failed == 0 { Status::Done } else { Status::Partial })
}
