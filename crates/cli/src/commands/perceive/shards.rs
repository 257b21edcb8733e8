//! `embodied-r perceive merge`.

use embodied_r_perception::Error;
use embodied_r_perception::perceive::{self, MergeOptions, MergeReport};

use super::explain::explain;
use crate::args::perceive::MergeShardsArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// Merge the outputs of shards.
pub(super) fn merge(args: MergeShardsArgs) -> anyhow::Result<Status> {
    let options = MergeOptions {
        data_paths: args.data.data,
        answers: args.data.answers,
        save_path: args.data.output,
        shards: args.shards,
    };
    let merged = perceive::merge(&options, &Bar::default()).map_err(|error| match error {
        Error::NotAShard { .. } => Usage(error.to_string()).into(),
        other => explain(other),
    })?;
    for MergeReport { output, log, questions, finished, failed } in &merged {
        outln!("{}: {finished} of {questions} questions", output.display())?;
        if *failed > 0 {
            outln!("  {failed} failed")?;
        }
        outln!("  captions in {}", log.display())?;
    }
    let failed: usize = merged.iter().map(|merged| merged.failed).sum();
    if failed > 0 {
        eprintln!("hint: `perceive` without `--shard` retries the failed questions");
    }
    Ok(if failed == 0 { Status::Done } else { Status::Partial })
}
