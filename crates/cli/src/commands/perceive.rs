//! `embodied-r perceive`.

mod captioning;
mod estimate;
mod explain;
mod model;
mod replica;
mod shards;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_data::DataFiles;
use embodied_r_files::write_atomic;
use embodied_r_perception::captioner::SceneCaptioner;
use embodied_r_perception::perceive::{self, ChangedSettings, PerceiveOptions, Scope};

use crate::args::benchmark::BenchmarkArgs;
use crate::args::perceive::backend::Backend;
use crate::args::perceive::{PerceiveArgs, PerceiveCommand, ScopeName};
use crate::exit::{Status, Usage};
use crate::interrupt::on_interrupt;
use crate::progress::Bar;
use crate::questions::{QuestionSource, Reader};
use crate::ranks::run_on_ranks;
use crate::video_captioner::key_frames;
use captioning::{perceive, report, run_model};
use explain::explain;

const IMAGE_SIDE: u32 = 1280;

/// Caption videos.
pub(crate) fn run(mut args: PerceiveArgs) -> anyhow::Result<Status> {
    if let Some(PerceiveCommand::Merge(args)) = args.command {
        return shards::merge(args);
    }
    if let Some(file) = benchmark_questions(&args)? {
        args.data.data = vec![file];
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

/// Writes the questions of a benchmark in its own layout as a question file in the output directory; `None` without one.
fn benchmark_questions(args: &PerceiveArgs) -> anyhow::Result<Option<PathBuf>> {
    let BenchmarkArgs { benchmark, prompt } = &args.benchmark;
    let source = QuestionSource {
        benchmark: *benchmark,
        prompt: prompt.prompt.clone(),
        ..QuestionSource::files(DataFiles::new(args.data.data.clone()))
    };
    let Some(annotations) = source.annotations(Reader::Text)? else { return Ok(None) };
    let questions = annotations.captioned_questions(args.video_dir.as_deref())?;
    let name = benchmark.map_or("questions", |benchmark| benchmark.name);
    let file = args.data.output.join("questions").join(format!("{name}.json"));
    write_atomic(&file, &serde_json::to_vec_pretty(&questions)?)?;
    Ok(Some(file))
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
