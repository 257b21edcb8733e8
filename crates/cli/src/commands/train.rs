//! `embodied-r train`.

pub(super) mod data;
mod dry_run;
pub(super) mod explain;
pub(super) mod job;
pub(super) mod memory;
mod progress;
pub(super) mod session;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use embodied_r_data::Question;
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::Error;
use embodied_r_grpo::checkpoint::Checkpoint;
use embodied_r_grpo::data::length_limit::LengthLimit;
use embodied_r_grpo::data::questions::{Prompts, prompts};
use embodied_r_grpo::data::samples;
use embodied_r_grpo::estimate::memory_plan::Workload;
use embodied_r_grpo::events::{Parquet, Sink, drawn};
use embodied_r_grpo::model::{Model, VisionPolicy};
use embodied_r_grpo::rewards::scoring::reward_names;
use embodied_r_grpo::settings::{GrpoSettings, JudgeKind};
use embodied_r_grpo::trainer::RunOutcome;
use embodied_r_grpo::trainer::grpo::{GrpoData, GrpoInputs, GrpoTrainer};
use embodied_r_media::laid_out::LaidOutSample;
use embodied_r_media::table::ImageTable;
use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_policy::{ActivationCacheOptions, Policy};
use embodied_r_rewards::Judge;
use embodied_r_rewards::http_judge::{HttpJudge, HttpJudgeOptions};
use embodied_r_rewards::service::{base_urls, client_options};

use crate::args::train::TrainArgs;
use crate::exit::Status;
use crate::ranks::run_job;
use crate::run_images::vision_load;
use data::{SeenData, TextQuestions};
use dry_run::DryRun;
use explain::explain;
use job::Job;
use session::{DataArgs, Session};

/// Timeout of a judge's response, which is a few tokens long.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Train with GRPO.
pub(crate) fn run(mut args: TrainArgs) -> anyhow::Result<Status> {
    args.run.reward_funcs = std::mem::take(&mut args.reward_funcs);
    let job = args.run.job.clone();
    let folder = || session::folder::<GrpoSettings>(&args.run);
    run_job(&job, folder, |process_group| run_as(&args, process_group))
}

fn run_as(args: &TrainArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    let data = DataArgs { data: &args.data, eval_data: &args.eval_data };
    let session = Session::<GrpoSettings>::open(&args.run, data, process_group)?;
    let run = &session.settings.run;
    let media = &session.settings.media;
    let questions = data::questions(&run.data, media)?;
    let eval = run.eval_data.as_ref().map(|eval| data::questions(eval, media)).transpose()?;
    let eval = eval.unwrap_or_default();
    let job = Job::new(&args.run, session, process_group)?;
    let settings = job.settings();
    data::warn_about_columns(&job, &settings.media)?;

    let limit = settings.prompt_limit(job.config.max_position_embeddings);
    let seen = data::seen(&job, &settings.media, &settings.vision)?;
    let (questions, eval, table) = match seen {
        Some(SeenData { table, train, eval }) => {
            let questions = prompted(&job, Given::Seen(train, &table), &limit, "training")?;
            let eval = prompted(&job, Given::Seen(eval, &table), &limit, "evaluation")?;
            (questions, eval, Some(table))
        }
        None => {
            let text = |read: TextQuestions, name| {
                data::warn_about(&job, &read);
                prompted(&job, Given::Text(read.questions), &limit, name)
            };
            (text(questions, "training")?, text(eval, "evaluation")?, None)
        }
    };
    let data = GrpoData::new(settings, questions, eval).map_err(explain)?;
    let cache_policy =
        memory::cache_policy(settings, job.unchanged().map(|checkpoint| &checkpoint.state));
    let longest = data.questions().longest();
    let load = Workload::for_training(settings, data.stages(), job.counts, longest, cache_policy);
    let reference = settings.reference_tower(data.stages());
    let vision = match &table {
        Some(table) => {
            let prompts = data.questions().questions.iter().map(|question| &question.prompt);
            let trained = (&settings.trainable(), reference);
            vision_load(table, &settings.vision, trained, prompts)?
        }
        None => None,
    };
    let load = Workload { vision, ..load };
    let memory = job.memory(load)?;
    let ranks = job.ranks();
    let dry_run = DryRun { settings, data: &data, load: &load, memory: &memory, ranks };
    let plan = dry_run.text().map_err(explain)?;
    if args.run.dry_run {
        return job.dry_run(&plan);
    }
    let judge = judge(settings)?;
    let activation_cache = agreed(memory.activation_cache, process_group)?;
    job.run(&memory, |job, mut run, mut sinks| {
        let settings = job.settings();
        if settings.rollout.log_completions && job.process_group.is_rank_zero() {
            let names = reward_names(settings, data.stages());
            let drawn = drawn(&data.questions().questions);
            sinks.push(Box::new(Parquet::new(&settings.run.output, names, drawn)));
        }
        let verify_packing = args.verify_packing;
        let encoding = (settings.lr.learning_rate, reference);
        let images = table.map(|table| job.images(table, &settings.vision, encoding, &memory));
        run.images = images.transpose()?.map(Arc::new);
        let is_seen = run.images.is_some();
        let inputs = GrpoInputs { settings, data, judge, activation_cache, verify_packing, run };
        match is_seen {
            true => trained::<VisionPolicy>(job.checkpoint(), inputs, sinks),
            false => trained::<Policy>(job.checkpoint(), inputs, sinks),
        }
    })
}

/// Trains, from a checkpoint if there is one.
fn trained<M: Model + 'static>(
    checkpoint: Option<&Checkpoint>,
    inputs: GrpoInputs<'_>,
    sinks: Vec<Box<dyn Sink + '_>>,
) -> Result<RunOutcome, Error> {
    match checkpoint {
        Some(checkpoint) => GrpoTrainer::<M>::resume(checkpoint, inputs, sinks)?.run(),
        None => GrpoTrainer::<M>::from_base(inputs, sinks)?.run(),
    }
}

/// The first rank's activation cache options, for all ranks: results depend on the number of cached layers.
fn agreed(
    activation_cache: Option<ActivationCacheOptions>,
    process_group: &ProcessGroup,
) -> anyhow::Result<Option<ActivationCacheOptions>> {
    let parts = activation_cache.map(|ActivationCacheOptions { layers, tokens }| (layers, tokens));
    let parts = process_group.broadcast(parts)?;
    Ok(parts.map(|(layers, tokens)| ActivationCacheOptions { layers, tokens }))
}

/// Questions as text, or with images of a table.
enum Given<'a> {
    Text(Vec<Question>),
    Seen(Vec<LaidOutSample>, &'a ImageTable),
}

/// The questions as prompts, with the system prompt; warns about those left out because of their length.
fn prompted(
    job: &Job<'_, GrpoSettings>,
    questions: Given<'_>,
    limit: &LengthLimit,
    what: &str,
) -> anyhow::Result<Prompts> {
    let (system, text) = (job.settings().prompt.system_prompt(), job.tokenizer.as_ref());
    let prompts = match questions {
        Given::Text(questions) => prompts(questions, text, &system, limit),
        Given::Seen(samples, table) => {
            samples::prompts(samples, (text, table.processor()), &system, limit)
        }
    };
    let prompts = prompts.map_err(explain)?;
    if prompts.too_long > 0 {
        let too_long = prompts.too_long;
        job.warn(&format!("dropped {too_long} {what} questions whose prompts exceed {limit}"));
    }
    Ok(prompts)
}

/// The judge behind an API, if the settings have one.
fn judge(settings: &GrpoSettings) -> anyhow::Result<Option<Box<dyn Judge>>> {
    let (JudgeKind::Http, Some(url), Some(model)) =
        (settings.judge.judge, &settings.judge.judge_base_url, &settings.judge.judge_model)
    else {
        return Ok(None);
    };
    let client = ClientOptions {
        api_key: ApiKey::from_env("OPENAI_API_KEY"),
        ..client_options(base_urls(url), JUDGE_TIMEOUT)
    };
    Ok(Some(Box::new(HttpJudge::new(HttpJudgeOptions::new(client, model))?)))
}
