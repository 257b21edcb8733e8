//! `embodied-r perceive`.

use std::time::Duration;

use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_perception::captioner::{Captioner, OpenAi, OpenAiOptions, SceneCaptions};
use embodied_r_perception::perceive::{self, Changed, Options, Summary};
use embodied_r_perception::{Error, keyframes};

use crate::args::perceive::{Backend, OpenAiArgs, PerceiveArgs};
use crate::exit::{self, Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// The model of the paper.
const MODEL: &str = "Qwen/Qwen2.5-VL-72B-Instruct";
/// Where vLLM listens unless told otherwise.
const BASE_URL: &str = "http://localhost:8000/v1";
const API_KEY_ENV: &str = "OPENAI_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(300);
const MAX_RETRIES: u32 = 5;
const IMAGE_SIDE: u32 = 1280;

/// Turn videos into text with a captioner.
pub(crate) fn run(args: PerceiveArgs) -> anyhow::Result<Status> {
    check_backend(&args)?;
    let keyframes = keyframes::Options {
        threshold: args.key_frames.threshold,
        min_frames: args.key_frames.min_frames,
        max_frames: args.key_frames.max_frames,
        ..keyframes::Options::default()
    };
    let options = Options {
        data_paths: args.data_paths,
        answers: args.answers,
        folder_path: args.folder_path,
        save_path: args.save_path,
        concurrency: args.concurrency,
        limit: args.limit,
        image_side: match args.backend {
            Backend::Openai => Some(args.openai.image_side.unwrap_or(IMAGE_SIDE)),
            Backend::Scene => None,
        },
        changed: match args.redo_changed {
            true => Changed::Redo,
            false => Changed::Refuse,
        },
        keyframes,
    };
    let captioner: Box<dyn Captioner> = match args.scene.scenes {
        Some(scenes) => Box::new(SceneCaptions::open(&scenes, options.keyframes.max_frames)?),
        None => Box::new(openai(args.openai, options.concurrency)?),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let summaries = runtime
        .block_on(perceive::run(&options, captioner.as_ref(), &Bar::default()))
        .map_err(explain)?;
    report(&summaries)
}

/// Refuses options of one backend with the other.
fn check_backend(args: &PerceiveArgs) -> Result<(), Usage> {
    let OpenAiArgs { model_path, base_url, api_key_env, timeout_s, max_retries, .. } = &args.openai;
    let typed = match args.backend {
        Backend::Scene => vec![
            ("--model-path", model_path.is_some()),
            ("--base-url", !base_url.is_empty()),
            ("--api-key-env", api_key_env.is_some()),
            ("--timeout-s", timeout_s.is_some()),
            ("--max-retries", max_retries.is_some()),
            ("--temperature", args.openai.temperature.is_some()),
            ("--max-tokens", args.openai.max_tokens.is_some()),
            ("--image-side", args.openai.image_side.is_some()),
        ],
        Backend::Openai => vec![("--scenes", args.scene.scenes.is_some())],
    };
    let (chosen, other) = match args.backend {
        Backend::Scene => ("scene", "openai"),
        Backend::Openai => ("openai", "scene"),
    };
    match typed.iter().find(|(_, typed)| *typed) {
        Some((flag, _)) => Err(Usage(format!(
            "`{flag}` belongs to `--backend {other}`, but the backend is `{chosen}`"
        ))),
        None => Ok(()),
    }
}

fn openai(args: OpenAiArgs, concurrency: usize) -> Result<OpenAi, Usage> {
    let base_urls = match args.base_url {
        none if none.is_empty() => vec![BASE_URL.to_owned()],
        given => given,
    };
    let client = ClientOptions {
        api_key: ApiKey::from_env(args.api_key_env.as_deref().unwrap_or(API_KEY_ENV)),
        timeout: args.timeout_s.unwrap_or(TIMEOUT),
        max_retries: args.max_retries.unwrap_or(MAX_RETRIES),
        ..ClientOptions::new(base_urls)
    };
    let model = args.model_path.unwrap_or_else(|| MODEL.to_owned());
    let OpenAiArgs { temperature, max_tokens, .. } = args;
    OpenAi::new(OpenAiOptions { client, model, temperature, max_tokens, concurrency })
        .map_err(|error| Usage(error.to_string()))
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
        if summary.left() > 0 {
            outln!("  {} left by `--limit`", summary.left())?;
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
    Ok(if failed == 0 { Status::Done } else { Status::Partial })
}
