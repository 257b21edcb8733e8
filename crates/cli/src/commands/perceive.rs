//! `embodied-r perceive`.

mod estimate;
mod model;
mod replica;
mod shards;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_data::Progress;
use embodied_r_perception::Error;
use embodied_r_perception::captioner::{Captioner, ChatModel, Fault, ModelCaptions, SceneCaptions};
use embodied_r_perception::perceive::{self, Changed, Options, Scope, Summary};

use crate::args::device::DeviceName;
use crate::args::model::PrecisionName;
use crate::args::perceive::{
    Backend, LocalArgs, OpenAiArgs, PerceiveArgs, PerceiveCommand, ScopeName, VisionModelArgs,
};
use crate::exit::{self, Status, Usage};
use crate::interrupt::on_interrupt;
use crate::output::outln;
use crate::perceiver::key_frames;
use crate::progress::Bar;
use crate::ranks::together;
use model::Taken;

const IMAGE_SIDE: u32 = 1280;

/// Turn videos into text with a captioner.
pub(crate) fn run(args: PerceiveArgs) -> anyhow::Result<Status> {
    if let Some(PerceiveCommand::Merge(args)) = args.command {
        return shards::merge(args);
    }
    check_backend(&args)?;
    let bar = Bar::default();
    let stop = on_interrupt("waiting for the requests on their way, which are kept")?;
    let options = options(&args, stop);
    match args.backend {
        Backend::Scene => {
            let missing = || Usage("`--backend scene` needs `--scenes`".into());
            let scenes = args.scene.scenes.ok_or_else(missing)?;
            let captioner = SceneCaptions::open(&scenes, options.keyframes.max_frames)?;
            report(&perceive(&options, &captioner, &bar)?)
        }
        Backend::Openai => {
            asked(&model::remote(args.model, args.openai, &options, &bar)?, &options, &bar)
        }
        Backend::Local => {
            let PerceiveArgs { model, local, parallel, .. } = args;
            let device = local.weights.device;
            together(&parallel.ranks, device, |team| {
                replica::run(model, &local, &parallel, options, team)
            })
        }
    }
}

/// Lets a model make the captions, and tells what it took.
fn asked<M: ChatModel>(
    captioner: &ModelCaptions<M>,
    options: &Options,
    progress: &dyn Progress,
) -> anyhow::Result<Status> {
    let status = perceive(options, captioner, progress).and_then(|done| report(&done));
    // What was paid for is told of a run that failed too.
    model::report(&Taken::of(captioner), options)?;
    status
}

fn options(args: &PerceiveArgs, stop: Arc<AtomicBool>) -> Options {
    Options {
        data_paths: args.data.data_paths.clone(),
        answers: args.data.answers.clone(),
        folder_path: args.folder_path.clone(),
        save_path: args.data.save_path.clone(),
        concurrency: args.concurrency,
        limit: args.limit,
        keyframes: key_frames(&args.key_frames),
        image_side: match args.backend {
            Backend::Openai | Backend::Local => Some(args.model.image_side.unwrap_or(IMAGE_SIDE)),
            Backend::Scene => None,
        },
        changed: match args.redo_changed {
            true => Changed::Redo,
            false => Changed::Refuse,
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
    options: &Options,
    captioner: &dyn Captioner,
    progress: &dyn Progress,
) -> anyhow::Result<Vec<Summary>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(perceive::run(options, captioner, progress)).map_err(explain)
}

/// Flags, and whether they were typed.
type Flags<'a> = &'a [(&'a str, bool)];

/// Refuses options of one backend with another.
fn check_backend(args: &PerceiveArgs) -> Result<(), Usage> {
    let VisionModelArgs { model_path, temperature, max_tokens, image_side, cache } = &args.model;
    let OpenAiArgs { base_url, api_key_env, timeout_s, max_retries, .. } = &args.openai;
    let LocalArgs { weights, max_pixels, .. } = &args.local;
    let of_models = [
        ("--model-path", model_path.is_some()),
        ("--temperature", temperature.is_some()),
        ("--max-tokens", max_tokens.is_some()),
        ("--image-side", image_side.is_some()),
        ("--cache", cache.is_some()),
    ];
    let of_servers = [
        ("--base-url", !base_url.is_empty()),
        ("--api-key-env", api_key_env.is_some()),
        ("--timeout-s", timeout_s.is_some()),
        ("--max-retries", max_retries.is_some()),
        ("--connect-timeout-s", args.openai.connect_timeout_s.is_some()),
        ("--first-byte-timeout-s", args.openai.first_byte_timeout_s.is_some()),
        ("--retry-refused", args.openai.retry_refused),
        ("--price-in", args.openai.price_in.is_some()),
        ("--max-cost", args.openai.max_cost.is_some()),
    ];
    let of_process = [
        ("--precision", weights.precision != PrecisionName::default()),
        ("--quantize", weights.quantize.is_some()),
        ("--device", weights.device != DeviceName::default()),
        ("--gpus", args.parallel.ranks.gpus.is_some()),
        ("--max-pixels", max_pixels.is_some()),
        ("--ranks", args.parallel.ranks.ranks.is_some()),
        ("--tp", args.parallel.tp.is_some()),
    ];
    let of_scenes = [("--scenes", args.scene.scenes.is_some())];
    // The other backend of a model is not named: whoever types these has a server in mind.
    let owners: [(Flags<'_>, &[Backend], &str); 4] = [
        (&of_models, &[Backend::Openai, Backend::Local], "openai"),
        (&of_servers, &[Backend::Openai], "openai"),
        (&of_process, &[Backend::Local], "local"),
        (&of_scenes, &[Backend::Scene], "scene"),
    ];
    for (flags, backends, owner) in owners {
        let typed = flags.iter().find(|(_, typed)| *typed);
        if let Some((flag, _)) = typed.filter(|_| !backends.contains(&args.backend)) {
            let chosen = match args.backend {
                Backend::Openai => "openai",
                Backend::Local => "local",
                Backend::Scene => "scene",
            };
            return Err(Usage(format!(
                "`{flag}` belongs to `--backend {owner}`, but the backend is `{chosen}`"
            )));
        }
    }
    let gb = args.local.kv_cache_gb;
    if gb.is_nan() || gb <= 0.0 {
        return Err(Usage(format!("`--kv-cache-gb` is {gb}, want a number above 0")));
    }
    Ok(())
}

/// Tells wrong usage from failures, and adds advice.
fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::SettingsChanged { .. }
        | Error::SameName { .. }
        | Error::WouldOverwrite { .. }
        | Error::AlreadyPerceived { .. }
        | Error::KeyframeOption { .. } => Usage(error.to_string()).into(),
        Error::Data(embodied_r_data::Error::Io { action: "read", .. }) => exit::hint(
            error.to_string(),
            "name the data files with `--data-paths`; `embodied-r preprocess` makes them",
        ),
        Error::Hopeless { .. } => exit::hint(
            error.to_string(),
            "what is finished is kept; mend the cause, and the same command goes on",
        ),
        Error::Chat(embodied_r_openai::Error::Status { status: 401 | 403, .. }) => exit::hint(
            error.to_string(),
            "put the key into OPENAI_API_KEY, or name another variable with `--api-key-env`",
        ),
        Error::Chat(embodied_r_openai::Error::Status { status: 404, .. }) => exit::hint(
            error.to_string(),
            "`--base-url` ends in `/v1` with most servers, and `--model-path` is the name that they \
             know the model by",
        ),
        _ => error.into(),
    }
}

/// Prints what became of each file.
fn report(summaries: &[Summary]) -> anyhow::Result<Status> {
    for summary in summaries {
        let Summary { data_path, output, log, questions, already, finished, failed, .. } = summary;
        outln!("{}: {questions} questions", data_path.display())?;
        if summary.unanswered > 0 {
            outln!("  {} more without a published answer, left out", summary.unanswered)?;
        }
        outln!("  {finished} captioned now, {already} before, {failed} failed")?;
        for (category, n) in &summary.unsupported {
            outln!("  {n} of the failed are `{category}`, which the annotations cannot support")?;
        }
        if summary.refused > 0 {
            outln!(
                "  {} of the failed have a frame that the model refuses to describe; \
                 `--retry-refused` asks for it again",
                summary.refused
            )?;
        }
        for (fault, n) in &summary.faults {
            let what = match fault {
                Fault::Malformed => "are not in the form that was asked for",
                Fault::Truncated => "are cut off at the limit of tokens",
                _ => "have faults",
            };
            outln!("  {n} of the captions {what}, and are taken as they are")?;
        }
        if summary.left() > 0 {
            outln!("  {} left by `--limit`", summary.left())?;
        }
        if summary.unpaid > 0 {
            outln!("  {} left by `--max-cost`", summary.unpaid)?;
        }
        if summary.stopped > 0 {
            outln!("  {} left as the run was stopped", summary.stopped)?;
        }
        outln!("  {} of them in {}", finished + already, output.display())?;
        outln!("  captions in {}", log.display())?;
    }
    let failed: usize = summaries.iter().map(|summary| summary.failed).sum();
    let unsupported: usize =
        summaries.iter().flat_map(|summary| summary.unsupported.values()).sum();
    if failed > unsupported {
        eprintln!(
            "hint: {} questions failed, for the reasons in the logs; the same command again does \
             only what is missing",
            failed - unsupported
        );
    }
    let unpaid = summaries.iter().any(|summary| summary.unpaid > 0);
    if unpaid {
        eprintln!("hint: `--max-cost` is reached; the same command with a higher one goes on");
    }
    let stopped = summaries.iter().any(|summary| summary.stopped > 0);
    if stopped {
        eprintln!("hint: the same command goes on where this run was stopped");
    }
    Ok(if failed == 0 && !unpaid && !stopped { Status::Done } else { Status::Partial })
}
