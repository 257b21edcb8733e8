//! `embodied-r train`.

mod dry_run;
pub(super) mod memory;
pub(super) mod session;

use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use embodied_r_data::Question;
use embodied_r_data::question::read_questions;
use embodied_r_grpo::Error;
use embodied_r_grpo::checkpoint::{Checkpoint, RunLock};
use embodied_r_grpo::data::length_limit::LengthLimit;
use embodied_r_grpo::data::questions::{Prompts, TokenizedQuestion, prompts};
use embodied_r_grpo::events::{Parquet, Sink};
use embodied_r_grpo::model::Model;
use embodied_r_grpo::process_group::ProcessGroup;
use embodied_r_grpo::rewards::scoring::reward_names;
use embodied_r_grpo::settings::{GrpoSettings, JudgeKind};
use embodied_r_grpo::trainer::RunInputs;
use embodied_r_grpo::trainer::grpo::{GrpoInputs, GrpoTrainer, check_best_metric};
use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{ActivationCacheOptions, Policy};
use embodied_r_rewards::Judge;
use embodied_r_rewards::http_judge::{HttpJudge, HttpJudgeOptions};
use embodied_r_rewards::service::{base_urls, client_options};

use crate::args::train::TrainArgs;
use crate::exit::Status;
use crate::interrupt::on_interrupt;
use crate::output::out;
use crate::progress::Bar;
use crate::ranks::run_job;
use crate::settings;
use memory::RankDevice;
use session::{Base, Session, explain};

/// Timeout of a judge's response, which is a few tokens long.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings that may change on resume without a warning. `model` is one of them because its contents are verified by
/// fingerprint.
const MUTABLE_ON_RESUME: [&str; 15] = [
    "eval_steps",
    "greater_is_better",
    "judge_base_url",
    "judge_model",
    "keep_every_epochs",
    "log_completions",
    "log_unweighted_rewards",
    "max_skipped_steps",
    "metric_for_best_model",
    "model",
    "output",
    "report_to",
    "save_steps",
    "save_total_limit",
    "truncation_strategy",
];

/// Train with GRPO.
pub(crate) fn run(mut args: TrainArgs) -> anyhow::Result<Status> {
    args.run.reward_funcs = std::mem::take(&mut args.reward_funcs);
    let job = args.run.job.clone();
    let folder =
        || session::folder(&args.run, |settings: &GrpoSettings| settings.run.output.clone());
    run_job(&job, folder, |process_group| run_as(&args, process_group))
}

fn run_as(args: &TrainArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    let (data, eval_data) = (args.data.as_deref(), args.eval_data.as_deref());
    let output = |settings: &GrpoSettings| settings.run.output.clone();
    let session =
        session::open(&args.run, [data, eval_data], output, &MUTABLE_ON_RESUME, process_group)?;
    let Session { settings, checkpoint, .. } = &session;

    let questions = read_questions(&settings.run.data)?;
    let eval =
        settings.run.eval_data.as_deref().map(read_questions).transpose()?.unwrap_or_default();
    let base = session::base(&settings.run.model, &settings.trainable(), checkpoint.as_ref())?;
    let text = Arc::new(Tokenizer::from_dir(&base.folder)?);
    let (given, evaluated) = (questions.len(), eval.len());
    let trained = session::trained(&base, &settings.trainable())?;
    let limit = settings.prompt_limit(trained.config.max_position_embeddings);
    let system = settings.rollout.system_prompt.as_deref();
    let questions = prompted(questions, &text, (system, &limit), "training", process_group)?;
    let eval = prompted(eval, &text, (system, &limit), "evaluation", process_group)?;
    let (of_train, of_eval) = ((given, questions.len()), (evaluated, eval.len()));
    let stages = settings.stages().map_err(|faults| explain(Error::Settings(faults)))?;
    check_best_metric(settings, &stages, &eval).map_err(explain)?;
    let resumed_from = checkpoint.as_ref().filter(|_| !session.changed);
    let cache_policy =
        memory::cache_policy(settings, resumed_from.map(|checkpoint| &checkpoint.state));
    let ranks = process_group.world_size();
    let device = session::device(&args.run.job, settings.run.precision, process_group)?;
    let rank_device = RankDevice { device: &device, precision: settings.run.precision, ranks };
    let memory =
        memory::of_train(settings, &stages, &trained, &questions, cache_policy, &rank_device)?;
    let longest = memory::longest_prompt(&questions);
    let arithmetic =
        dry_run::text(settings, trained.counts, (&memory, ranks), longest, of_train, of_eval)
            .map_err(explain)?;
    if args.run.dry_run {
        if process_group.is_rank_zero() {
            out!("{arithmetic}")?;
        }
        return Ok(Status::Done);
    }
    session::log_memory(&memory, &rank_device, process_group)?;
    let judge = judge(settings)?;
    let lock = session.prepare(&settings.run.output, process_group)?;
    let plan = ExecutionOptions {
        device,
        activation_bytes: memory.saved_activations,
        activation_cache: agreed(memory.activation_cache, process_group)?,
        verify_packing: args.verify_packing,
        lock,
    };
    train(
        settings,
        &base,
        text,
        (questions, eval),
        judge,
        (checkpoint.as_ref(), plan),
        process_group,
    )
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

/// Execution options, which affect results by rounding only, and the run's lock.
struct ExecutionOptions {
    device: Device,
    activation_bytes: usize,
    activation_cache: Option<ActivationCacheOptions>,
    verify_packing: bool,
    lock: Option<Arc<RunLock>>,
}

fn train(
    settings: &GrpoSettings,
    Base { folder, fingerprint }: &Base,
    text: Arc<Tokenizer>,
    (questions, eval): (Vec<TokenizedQuestion>, Vec<TokenizedQuestion>),
    judge: Option<Box<dyn Judge>>,
    (checkpoint, plan): (Option<&Checkpoint>, ExecutionOptions),
    process_group: &ProcessGroup,
) -> anyhow::Result<Status> {
    let settings_text = settings::text(settings)?;
    let stop = on_interrupt("stopping after a checkpoint")?;
    let bar = Bar::default();
    let mut sinks: Vec<Box<dyn Sink + '_>> = Vec::new();
    if process_group.is_rank_zero() {
        sinks.push(session::progress(&bar, "training"));
    }
    if settings.rollout.log_completions && process_group.is_rank_zero() {
        let stages = settings.stages().map_err(|faults| explain(Error::Settings(faults)))?;
        let names = reward_names(settings, &stages);
        sinks.push(Box::new(Parquet::new(&settings.run.output, names)));
    }
    let job = GrpoInputs {
        settings,
        questions,
        eval,
        judge,
        activation_cache: plan.activation_cache,
        verify_packing: plan.verify_packing,
        run: RunInputs {
            settings_text: &settings_text,
            base: folder,
            fingerprint,
            tokenizer: text,
            activation_bytes: plan.activation_bytes,
            device: plan.device.clone(),
            stop: &stop,
            lock: plan.lock,
            process_group: process_group.clone(),
        },
    };
    let trainer = match checkpoint {
        Some(checkpoint) => GrpoTrainer::<Policy>::resume(checkpoint, job, sinks),
        None => {
            let loading = settings
                .run
                .load_options(settings.trainable(), folder, plan.activation_bytes)
                .on_device(&plan.device);
            <Policy as Model>::load(folder, &loading)
                .and_then(|policy| GrpoTrainer::start(policy, job, sinks))
        }
    };
    let outcome = trainer.and_then(GrpoTrainer::run).map_err(explain)?;
    session::finish(&outcome, "train", process_group)
}

/// The questions as prompts, with the system prompt; warns about those left out because of their length.
fn prompted(
    questions: Vec<Question>,
    text: &Arc<Tokenizer>,
    (system, limit): (Option<&str>, &LengthLimit),
    what: &str,
    process_group: &ProcessGroup,
) -> anyhow::Result<Vec<TokenizedQuestion>> {
    let Prompts { questions: prompted, too_long } =
        prompts(questions, text.as_ref(), system, limit).map_err(explain)?;
    if too_long > 0 && process_group.is_rank_zero() {
        eprintln!("warning: dropped {too_long} {what} questions whose prompts exceed {limit}");
    }
    Ok(prompted)
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
