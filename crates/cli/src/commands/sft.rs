//! `embodied-r sft`.

use std::path::Path;
use std::sync::Arc;

use embodied_r_grpo::data::conversations::{self, SftExamples};
use embodied_r_grpo::data::length_limit::LengthLimit;
use embodied_r_grpo::data::sampler::BatchSampler;
use embodied_r_grpo::estimate::memory_plan::MemoryPlan;
use embodied_r_grpo::events::Sink;
use embodied_r_grpo::model::Model;
use embodied_r_grpo::process_group::ProcessGroup;
use embodied_r_grpo::settings::SftSettings;
use embodied_r_grpo::trainer::RunInputs;
use embodied_r_grpo::trainer::sft::{SftInputs, SftTrainer};
use embodied_r_grpo::update::supervised::Example;
use embodied_r_grpo::{Error, Result};
use embodied_r_policy::Policy;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::trainable::ParameterCounts;

use super::train::memory::{self, RankDevice};
use super::train::session::{self, Base, Session, explain};
use crate::args::sft::SftArgs;
use crate::exit::Status;
use crate::interrupt::on_interrupt;
use crate::output::out;
use crate::progress::Bar;
use crate::ranks::run_job;
use crate::settings;

/// Settings that may change on resume without a warning. `model` is one of them because its contents are verified by
/// fingerprint.
const MUTABLE_ON_RESUME: [&str; 8] = [
    "keep_every_epochs",
    "max_skipped_steps",
    "model",
    "output",
    "report_to",
    "save_steps",
    "save_total_limit",
    "truncation_strategy",
];

/// Fine-tune on conversations (cold start).
pub(crate) fn run(args: SftArgs) -> anyhow::Result<Status> {
    let job = args.run.job.clone();
    let folder =
        || session::folder(&args.run, |settings: &SftSettings| settings.run.output.clone());
    run_job(&job, folder, |process_group| run_as(&args, process_group))
}

fn run_as(args: &SftArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    let (data, eval_data) = (args.data.as_deref(), args.eval_data.as_deref());
    let output = |settings: &SftSettings| settings.run.output.clone();
    let session =
        session::open(&args.run, [data, eval_data], output, &MUTABLE_ON_RESUME, process_group)?;
    let Session { settings, checkpoint, .. } = &session;

    let base = session::base(&settings.run.model, &settings.trainable(), checkpoint.as_ref())?;
    let trained = session::trained(&base, &settings.trainable())?;
    let Base { folder, fingerprint } = base;
    let text = Arc::new(Tokenizer::from_dir(&folder)?);
    let limit = settings.example_limit(trained.config.max_position_embeddings);
    let SftExamples { examples, too_long } =
        replies(&settings.run.data, &text, &limit, process_group)?;
    let eval = match &settings.run.eval_data {
        Some(file) => replies(file, &text, &limit, process_group)?.examples,
        None => Vec::new(),
    };
    let device = session::device(&args.run.job, settings.run.precision, process_group)?;
    let rank_device = RankDevice {
        device: &device,
        precision: settings.run.precision,
        ranks: process_group.world_size(),
    };
    let memory = memory::of_sft(settings, &trained, &examples, &rank_device)?;
    let arithmetic = arithmetic(
        settings,
        trained.counts,
        (&memory, process_group.world_size()),
        (&examples, too_long),
        &eval,
    )
    .map_err(explain)?;
    if args.run.dry_run {
        if process_group.is_rank_zero() {
            out!("{arithmetic}")?;
        }
        return Ok(Status::Done);
    }
    session::log_memory(&memory, &rank_device, process_group)?;
    let lock = session.prepare(&settings.run.output, process_group)?;
    let settings_text = settings::text(settings)?;
    let stop = on_interrupt("stopping after a checkpoint")?;
    let bar = Bar::default();
    let mut sinks: Vec<Box<dyn Sink + '_>> = Vec::new();
    if process_group.is_rank_zero() {
        sinks.push(session::progress(&bar, "fine-tuning"));
    }
    let job = SftInputs {
        settings,
        examples,
        eval,
        run: RunInputs {
            settings_text: &settings_text,
            base: &folder,
            fingerprint: &fingerprint,
            tokenizer: text,
            activation_bytes: memory.saved_activations,
            device: device.clone(),
            stop: &stop,
            lock,
            process_group: process_group.clone(),
        },
    };
    let trainer = match checkpoint {
        Some(checkpoint) => SftTrainer::<Policy>::resume(checkpoint, job, sinks),
        None => <Policy as Model>::load(
            &folder,
            &settings
                .run
                .load_options(settings.trainable(), &folder, memory.saved_activations)
                .on_device(&device),
        )
        .and_then(|model| SftTrainer::start(model, job, sinks)),
    };
    let outcome = trainer.and_then(SftTrainer::run).map_err(explain)?;
    session::finish(&outcome, "sft", process_group)
}

/// The examples of a file; warns about those left out because of their length.
fn replies(
    file: &Path,
    text: &Arc<Tokenizer>,
    limit: &LengthLimit,
    process_group: &ProcessGroup,
) -> anyhow::Result<SftExamples> {
    let found = conversations::read(file, text.as_ref(), limit).map_err(explain)?;
    if found.too_long > 0 && process_group.is_rank_zero() {
        eprintln!(
            "warning: dropped {} examples of `{}` that exceed {limit}, prompt included",
            found.too_long,
            file.display()
        );
    }
    Ok(found)
}

/// The batch arithmetic as text.
fn arithmetic(
    settings: &SftSettings,
    trained: ParameterCounts,
    (memory, ranks): (&MemoryPlan, usize),
    (examples, too_long): (&[Example], usize),
    eval: &[Example],
) -> Result<String> {
    let (left, needed) = (examples.len(), settings.supervised.train_batch_size);
    let sampler = BatchSampler::new(left, needed, settings.run.seed);
    let given = left + too_long;
    let sampler = sampler.ok_or(Error::TooFew { what: "examples", given, left, needed })?;
    let per_epoch = sampler.steps_per_epoch();
    let total = settings.total_steps(per_epoch);
    let total = total.map_err(|fault| Error::Settings(vec![fault]))?;
    let scheduler = settings.lr.lr_scheduler_type;
    let warmup = scheduler.warmup_steps(settings.lr.warmup_steps, settings.lr.warmup_ratio, total);
    let tokens: usize = examples.iter().map(Example::tokens).sum();
    let most = needed.div_ceil(ranks.max(1));
    let share = memory::share(ranks, (most, needed, "examples"), settings.optimizer.optim);
    let share = share.map(|(name, what)| format!("{name:<12} {what}\n")).unwrap_or_default();
    let trained_tokens: usize = examples.iter().map(|example| example.completion.len()).sum();
    Ok(format!(
        "model        {}\n\
         trainable    {trained}\n\
         examples     {left}, {tokens} tokens, {trained_tokens} trained on; {too_long} too long; {} for validation\n\
         epoch        {per_epoch} steps = {left} examples / {needed}, {} dropped\n\
         run          {total} steps in {} epochs\n\
         warmup       {warmup} steps to {:e}, then {}\n\
         micro-batch  at most {} tokens\n\
         {share}memory       {}\n",
        settings.run.model,
        eval.len(),
        left as u64 - per_epoch * needed as u64,
        settings.supervised.num_train_epochs,
        settings.lr.learning_rate,
        scheduler.decay(),
        settings.run.max_tokens_per_batch,
        memory::memory_summary(memory, ranks),
    ))
}
