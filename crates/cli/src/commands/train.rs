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
use embodied_r_grpo::checkpoint::Checkpoint;
use embodied_r_grpo::events::{Parquet, Sink};
use embodied_r_grpo::model::Model;
use embodied_r_grpo::questions::{Prompted, Prompts, prompts};
use embodied_r_grpo::scoring::reward_names;
use embodied_r_grpo::settings::{JudgeKind, Train};
use embodied_r_grpo::team::Team;
use embodied_r_grpo::trainer::{Job, Trainer};
use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{Policy, TapeOptions};
use embodied_r_rewards::Judge;
use embodied_r_rewards::http_judge::{HttpJudge, HttpJudgeOptions};

use crate::args::train::TrainArgs;
use crate::device;
use crate::exit::{self, Status};
use crate::interrupt::on_interrupt;
use crate::output::out;
use crate::progress::Bar;
use crate::ranks::do_job;
use crate::settings;
use memory::Place;
use session::{Base, Session, explain};

/// Longest time for a judge's reply of a few tokens.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings that may change on resume without making the run another one: of `model` the folder's
/// contents count.
const FREE: [&str; 13] = [
    "eval_steps",
    "greater_is_better",
    "judge_base_url",
    "judge_model",
    "keep_every_epochs",
    "log_completions",
    "max_skipped_steps",
    "metric_for_best_model",
    "model",
    "output",
    "report_to",
    "save_steps",
    "save_total_limit",
];

/// Train with GRPO.
pub(crate) fn run(args: TrainArgs) -> anyhow::Result<Status> {
    let job = args.run.job.clone();
    let folder = || session::folder(&args.run, |settings: &Train| settings.output.clone());
    do_job(&job, folder, |team| run_as(&args, team))
}

fn run_as(args: &TrainArgs, team: &Team) -> anyhow::Result<Status> {
    let (data, eval_data) = (args.data.as_deref(), args.eval_data.as_deref());
    let output = |settings: &Train| settings.output.clone();
    let session = session::open(&args.run, [data, eval_data], output, &FREE, team)?;
    let Session { settings, checkpoint, .. } = &session;

    let questions = read_questions(&settings.data)?;
    let eval = settings.eval_data.as_deref().map(read_questions).transpose()?.unwrap_or_default();
    let base = session::base(&settings.model, checkpoint.as_ref())?;
    let text = Arc::new(Tokenizer::from_dir(&base.folder)?);
    let (given, evaluated) = (questions.len(), eval.len());
    let questions = prompted(questions, &text, settings, "training", team)?;
    let eval = prompted(eval, &text, settings, "evaluation", team)?;
    let trained = session::trained(&base, &settings.trainable())?;
    let (of_train, of_eval) = ((given, questions.len()), (evaluated, eval.len()));
    let stages = settings.stages().map_err(|faults| explain(Error::Settings(faults)))?;
    let goes_on = checkpoint.as_ref().filter(|_| !session.changed);
    let taping = memory::taping(settings, goes_on.map(|checkpoint| &checkpoint.state));
    let ranks = team.size();
    let device = device::open(args.run.job.device())?;
    let place = Place { device: &device, precision: settings.precision, ranks };
    let memory = memory::of_train(settings, &stages, &trained, &questions, taping, &place)?;
    let arithmetic = dry_run::text(settings, trained.counts, (&memory, ranks), of_train, of_eval)
        .map_err(explain)?;
    if args.run.dry_run {
        if team.is_first() {
            out!("{arithmetic}")?;
        }
        return Ok(Status::Done);
    }
    session::tell_memory(&memory, &place, team)?;
    let judge = judge(settings)?;
    let _lock = session.prepare(&settings.output, team)?;
    let plan = Plan {
        device,
        activation_bytes: memory.kept,
        tape: agreed(memory.tape, team)?,
        verify_packing: args.verify_packing,
    };
    train(settings, &base, text, (questions, eval), judge, (checkpoint.as_ref(), plan), team)
}

/// The tape of the first rank: results depend on its layers.
fn agreed(tape: Option<TapeOptions>, team: &Team) -> anyhow::Result<Option<TapeOptions>> {
    let parts = tape.map(|TapeOptions { layers, tokens }| (layers, tokens));
    let parts = team.of_first(parts)?;
    Ok(parts.map(|(layers, tokens)| TapeOptions { layers, tokens }))
}

/// How the run is computed, which changes nothing of it but for rounding.
struct Plan {
    device: Device,
    activation_bytes: usize,
    tape: Option<TapeOptions>,
    verify_packing: bool,
}

fn train(
    settings: &Train,
    Base { folder, fingerprint }: &Base,
    text: Arc<Tokenizer>,
    (questions, eval): (Vec<Prompted>, Vec<Prompted>),
    judge: Option<Box<dyn Judge>>,
    (checkpoint, plan): (Option<&Checkpoint>, Plan),
    team: &Team,
) -> anyhow::Result<Status> {
    let settings_text = settings::text(settings)?;
    let stop = on_interrupt("stopping after a checkpoint")?;
    let bar = Bar::default();
    let mut sinks: Vec<Box<dyn Sink + '_>> = Vec::new();
    if team.is_first() {
        sinks.push(session::progress(&bar, "training"));
    }
    if settings.log_completions && team.is_first() {
        let stages = settings.stages().map_err(|faults| explain(Error::Settings(faults)))?;
        let names = reward_names(settings, &stages);
        sinks.push(Box::new(Parquet::new(&settings.output, names)));
    }
    let job = Job {
        settings,
        settings_text: &settings_text,
        fingerprint,
        base: folder,
        text,
        questions,
        eval,
        judge,
        activation_bytes: plan.activation_bytes,
        device: plan.device.clone(),
        tape: plan.tape,
        verify_packing: plan.verify_packing,
        stop: &stop,
        team: team.clone(),
    };
    let trainer = match checkpoint {
        Some(checkpoint) => Trainer::<Policy>::resume(checkpoint, job, sinks),
        None => {
            let loading = settings.loading(folder, plan.activation_bytes).on(&plan.device);
            <Policy as Model>::load(folder, &loading)
                .and_then(|policy| Trainer::start(policy, job, sinks))
        }
    };
    let outcome = trainer.and_then(Trainer::run).map_err(explain)?;
    session::finish(&outcome, "train", team)
}

/// The questions as prompts; says how many are left out.
fn prompted(
    questions: Vec<Question>,
    text: &Arc<Tokenizer>,
    settings: &Train,
    what: &str,
    team: &Team,
) -> anyhow::Result<Vec<Prompted>> {
    let system = settings.system_prompt.as_deref();
    let limit = settings.max_prompt_length;
    let Prompts { prompted, too_long } =
        prompts(questions, text.as_ref(), system, limit).map_err(explain)?;
    if too_long > 0 && team.is_first() {
        eprintln!(
            "warning: {too_long} {what} questions left out, their prompts have more than {limit} \
             tokens (`max_prompt_length`)"
        );
    }
    Ok(prompted)
}

/// The judge behind an API, where the settings ask for one.
fn judge(settings: &Train) -> anyhow::Result<Option<Box<dyn Judge>>> {
    let (JudgeKind::Http, Some(url), Some(model)) =
        (settings.judge, &settings.judge_base_url, &settings.judge_model)
    else {
        return Ok(None);
    };
    let client = ClientOptions {
        api_key: ApiKey::from_env("OPENAI_API_KEY"),
        timeout: JUDGE_TIMEOUT,
        ..ClientOptions::new(url.split(',').map(str::trim))
    };
    let judge = HttpJudge::new(HttpJudgeOptions::new(client, model))
        .map_err(|error| exit::hint(error.to_string(), "look at `judge_base_url`"))?;
    Ok(Some(Box::new(judge)))
}
