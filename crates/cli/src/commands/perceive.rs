//! `embodied-r perceive`.

mod estimate;
mod model;
mod replica;
mod shards;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_data::Progress;
use embodied_r_perception::Error;
use embodied_r_perception::captioner::{
    CaptionFault, Captioner, ChatModel, ModelCaptioner, SceneCaptioner,
};
use embodied_r_perception::perceive::{
    self, ChangedSettings, PerceiveOptions, PerceiveSummary, Scope,
};

use crate::args::perceive::{Backend, PerceiveArgs, PerceiveCommand, ScopeName};
use crate::exit::{self, Status, Usage};
use crate::interrupt::on_interrupt;
use crate::output::outln;
use crate::progress::Bar;
use crate::ranks::run_on_ranks;
use crate::video_captioner::key_frames;
use model::UsageReport;

const IMAGE_SIDE: u32 = 1280;

/// Caption videos.
pub(crate) fn run(args: PerceiveArgs) -> anyhow::Result<Status> {
    if let Some(PerceiveCommand::Merge(args)) = args.command {
        return shards::merge(args);
    }
    let bar = Bar::default();
    let stop = on_interrupt("waiting for requests in flight")?;
    let options = options(&args, stop);
    perceive::check(&options).map_err(explain)?;
    match args.backend {
        Backend::Scene => {
            let missing = || Usage("`--backend scene` needs `--scenes`".into());
            let scenes = args.scene.scenes.ok_or_else(missing)?;
            let captioner = SceneCaptioner::open(&scenes, options.keyframes.max_frames)?;
            report(&perceive(&options, &captioner, &bar)?)
        }
        Backend::Openai => {
            run_model(&model::remote(args.model, args.openai, &options, &bar)?, &options, &bar)
        }
        Backend::Local => {
            let PerceiveArgs { model, local, parallel, .. } = args;
            let device = local.weights.device;
            run_on_ranks(&parallel.ranks, device, |process_group| {
                replica::run(model, &local, &parallel, options, process_group)
            })
        }
    }
}

/// Captions with a model, and reports its token usage.
fn run_model<M: ChatModel>(
    captioner: &ModelCaptioner<M>,
    options: &PerceiveOptions,
    progress: &dyn Progress,
) -> anyhow::Result<Status> {
    let status = perceive(options, captioner, progress).and_then(|done| report(&done));
    // A failed run has costs too.
    model::report(&UsageReport::of(captioner), options)?;
    status
}

fn options(args: &PerceiveArgs, stop: Arc<AtomicBool>) -> PerceiveOptions {
    PerceiveOptions {
        data_paths: args.data.data.clone(),
        answers: args.data.answers.clone(),
        folder_path: args.video_dir.clone(),
        save_path: args.data.output.clone(),
        concurrency: args.concurrency,
        limit: args.limit,
        keyframes: key_frames(&args.key_frames),
        image_side: match args.backend {
            Backend::Openai | Backend::Local => Some(args.model.image_side.unwrap_or(IMAGE_SIDE)),
            Backend::Scene => None,
        },
        changed_settings: match args.redo_changed {
            true => ChangedSettings::Recaption,
            false => ChangedSettings::Reject,
        },
        scope: match args.scope {
            ScopeName::Question => Scope::Question,
            ScopeName::Video => Scope::Video,
        },
        shard: args.shard,
        replica: None,
        stop,
    }
}

fn perceive(
    options: &PerceiveOptions,
    captioner: &dyn Captioner,
    progress: &dyn Progress,
) -> anyhow::Result<Vec<PerceiveSummary>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(perceive::run(options, captioner, progress)).map_err(explain)
}

/// Separates usage errors from failures, and adds hints.
fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::SettingsChanged { .. }
        | Error::DuplicateOutput { .. }
        | Error::WouldOverwrite { .. }
        | Error::AlreadyCaptioned { .. }
        | Error::KeyFrameOption { .. } => Usage(error.to_string()).into(),
        Error::Data(embodied_r_data::Error::Io { action: "read", .. }) => exit::hint(
            error.to_string(),
            "give the data files with `--data`; `embodied-r preprocess` writes them",
        ),
        Error::TooManyFailures { .. } => exit::hint(
            error.to_string(),
            "finished captions are kept; fix the cause and run the same command again to resume",
        ),
        Error::Chat(embodied_r_openai::Error::Status { status: 401 | 403, .. }) => exit::hint(
            error.to_string(),
            "set OPENAI_API_KEY, or name another variable with `--api-key-env`",
        ),
        Error::Chat(embodied_r_openai::Error::Status { status: 404, .. }) => exit::hint(
            error.to_string(),
            "check `--base-url`, which ends in `/v1` for most servers, and `--captioner`, which must be \
             the served model name",
        ),
        _ => error.into(),
    }
}

/// Prints a summary of each file.
fn report(summaries: &[PerceiveSummary]) -> anyhow::Result<Status> {
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
    if failed > unsupported {
        eprintln!(
            "hint: {} questions failed, see the log for the reasons; run the same command again to \
             retry them",
            failed - unsupported
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
