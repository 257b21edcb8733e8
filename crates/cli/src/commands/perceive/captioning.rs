//! Captions with a captioner, and prints what was done.

use embodied_r_data::Progress;
use embodied_r_perception::captioner::{CaptionFault, Captioner, ChatModel, ModelCaptioner};
use embodied_r_perception::perceive::{self, PerceiveOptions, PerceiveSummary};

use super::explain::explain;
use super::model::{self, UsageReport};
use crate::exit::Status;
use crate::output::outln;

/// Captions with a model, and reports its token usage.
pub(super) fn run_model<M: ChatModel>(
    captioner: &ModelCaptioner<M>,
    options: &PerceiveOptions,
    progress: &dyn Progress,
) -> anyhow::Result<Status> {
    let status = perceive(options, captioner, progress).and_then(|done| report(&done));
    // A failed run has costs too.
    model::report(&UsageReport::of(captioner), options)?;
    status
}

pub(super) fn perceive(
    options: &PerceiveOptions,
    captioner: &dyn Captioner,
    progress: &dyn Progress,
) -> anyhow::Result<Vec<PerceiveSummary>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(perceive::run(options, captioner, progress)).map_err(explain)
}

/// Prints a summary of each file.
pub(super) fn report(summaries: &[PerceiveSummary]) -> anyhow::Result<Status> {
    for summary in summaries {
        let PerceiveSummary {
            data_path,
            output,
            log,
            questions,
            already_finished: already,
            finished,
            failed,
            ..
        } = summary;
        outln!("{}: {questions} questions", data_path.display())?;
        if summary.unanswered > 0 {
            outln!("  {} more without a published answer, skipped", summary.unanswered)?;
        }
        outln!("  {finished} captioned, {already} cached, {failed} failed")?;
        for (category, n) in &summary.unsupported {
            outln!("  {n} failed: the annotations do not support `{category}`")?;
        }
        if summary.refused > 0 {
            outln!(
                "  {} failed: the model refused to describe a frame; `--retry-refused` retries",
                summary.refused
            )?;
        }
        for (fault, n) in &summary.faults {
            let what = match fault {
                CaptionFault::Malformed => "malformed",
                CaptionFault::Truncated => "truncated at the token limit",
                _ => "faulty",
            };
            outln!("  {n} captions are {what} and used as is")?;
        }
        if summary.remaining() > 0 {
            outln!("  {} not captioned: `--limit`", summary.remaining())?;
        }
        if summary.over_budget > 0 {
            outln!("  {} not captioned: `--max-cost` reached", summary.over_budget)?;
        }
        if summary.interrupted > 0 {
            outln!("  {} not captioned: interrupted", summary.interrupted)?;
        }
        outln!("  {} questions in {}", finished + already, output.display())?;
        outln!("  captions in {}", log.display())?;
    }
    let failed: usize = summaries.iter().map(|summary| summary.failed).sum();
    let unsupported: usize =
        summaries.iter().flat_map(|summary| summary.unsupported.values()).sum();
    let missing: usize = summaries.iter().map(|summary| summary.missing_videos).sum();
    if missing > 0 {
        eprintln!(
            "hint: the videos of {missing} questions were not found; give their directory with `--video-dir`, or put them \
             in `videos` beside the data file"
        );
    }
    let others = failed - unsupported - missing;
    if others > 0 {
        eprintln!(
            "hint: {others} questions failed, see the log for the reasons; run the same command again to retry them"
        );
    }
    let unpaid = summaries.iter().any(|summary| summary.over_budget > 0);
    if unpaid {
        eprintln!("hint: `--max-cost` is reached; run the command with a higher one to resume");
    }
    let stopped = summaries.iter().any(|summary| summary.interrupted > 0);
    if stopped {
        eprintln!("hint: run the same command again to resume");
    }
    Ok(if failed == 0 && !unpaid && !stopped { Status::Done } else { Status::Partial })
}
