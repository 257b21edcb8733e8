//! `embodied-r sft`.

use std::sync::Arc;

use embodied_r_data::DataFiles;
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::Error;
use embodied_r_grpo::checkpoint::Checkpoint;
use embodied_r_grpo::data::conversations::{self, SftExamples};
use embodied_r_grpo::data::length_limit::LengthLimit;
use embodied_r_grpo::data::samples;
use embodied_r_grpo::estimate::memory_plan::{MemoryPlan, Workload};
use embodied_r_grpo::events::Sink;
use embodied_r_grpo::images::ReferenceTower;
use embodied_r_grpo::model::{Model, VisionPolicy};
use embodied_r_grpo::settings::SftSettings;
use embodied_r_grpo::trainer::RunOutcome;
use embodied_r_grpo::trainer::sft::{SftData, SftInputs, SftTrainer};
use embodied_r_grpo::update::supervised::Example;
use embodied_r_policy::Policy;

use super::train::data::{self, SeenData};
use super::train::explain::explain;
use super::train::job::Job;
use super::train::memory::{StepShare, memory_summary, share_line};
use super::train::session::{self, DataArgs, Session};
use crate::args::sft::SftArgs;
use crate::exit::Status;
use crate::ranks::run_job;
use crate::run_images::vision_load;

/// Fine-tune on conversations (cold start).
pub(crate) fn run(args: SftArgs) -> anyhow::Result<Status> {
    let job = args.run.job.clone();
    let folder = || session::folder::<SftSettings>(&args.run);
    run_job(&job, folder, |process_group| run_as(&args, process_group))
}

fn run_as(args: &SftArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    let data = DataArgs { data: &args.data, eval_data: &args.eval_data };
    let session = Session::<SftSettings>::open(&args.run, data, process_group)?;
    let job = Job::new(&args.run, session, process_group)?;
    let settings = job.settings();

    let limit = settings.example_limit(job.config.max_position_embeddings);
    let (examples, eval, table) = match data::seen(&job, &settings.media, &settings.vision)? {
        Some(SeenData { table, train, eval }) => {
            let of = |samples| {
                let text = (job.tokenizer.as_ref() as _, table.processor());
                samples::examples(samples, text, &settings.prompt.system_prompt(), &limit)
            };
            let (train, eval) = (of(train).map_err(explain)?, of(eval).map_err(explain)?.examples);
            (warned(&job, train, &settings.run.data, &limit), eval, Some(table))
        }
        None => {
            let eval = match &settings.run.eval_data {
                Some(data) => read(&job, data, &limit)?.examples,
                None => Vec::new(),
            };
            (read(&job, &settings.run.data, &limit)?, eval, None)
        }
    };
    let data = SftData::new(settings, examples, eval).map_err(explain)?;
    let load = Workload::for_sft(settings, job.counts, &data.examples().examples);
    let vision = match &table {
        Some(table) => {
            let prompts = data.examples().examples.iter().map(|example| &example.prompt);
            let trained = (&settings.trainable(), ReferenceTower::Base);
            vision_load(table, &settings.vision, trained, prompts)?
        }
        None => None,
    };
    let load = Workload { vision, ..load };
    let memory = job.memory(load)?;
    if args.run.dry_run {
        return job.dry_run(&plan(&job, &data, &load, &memory));
    }
    job.run(&memory, |job, mut run, sinks| {
        let settings = job.settings();
        let encoding = (settings.lr.learning_rate, ReferenceTower::Base);
        let images = table.map(|table| job.images(table, &settings.vision, encoding, &memory));
        run.images = images.transpose()?.map(Arc::new);
        let is_seen = run.images.is_some();
        let inputs = SftInputs { settings, data, run };
        match is_seen {
            true => trained::<VisionPolicy>(job.checkpoint(), inputs, sinks),
            false => trained::<Policy>(job.checkpoint(), inputs, sinks),
        }
    })
}

/// Trains, from a checkpoint if there is one.
fn trained<M: Model>(
    checkpoint: Option<&Checkpoint>,
    inputs: SftInputs<'_>,
    sinks: Vec<Box<dyn Sink + '_>>,
) -> Result<RunOutcome, Error> {
    match checkpoint {
        Some(checkpoint) => SftTrainer::<M>::resume(checkpoint, inputs, sinks)?.run(),
        None => SftTrainer::<M>::from_base(inputs, sinks)?.run(),
    }
}

/// The examples of files about text.
fn read(
    job: &Job<'_, SftSettings>,
    data: &DataFiles,
    limit: &LengthLimit,
) -> anyhow::Result<SftExamples> {
    let system = job.settings().prompt.system_prompt();
    let found = conversations::read(data, job.tokenizer.as_ref(), &system, limit);
    let found = found.map_err(explain)?;
    Ok(warned(job, found, data, limit))
}

/// The examples of files, with a warning about those left out because of their length.
fn warned(
    job: &Job<'_, SftSettings>,
    found: SftExamples,
    data: &DataFiles,
    limit: &LengthLimit,
) -> SftExamples {
    if found.too_long > 0 {
        job.warn(&format!(
            "dropped {} examples of {data} that exceed {limit}, prompt included",
            found.too_long
        ));
    }
    found
}

/// The plan of the run as text.
fn plan(
    job: &Job<'_, SftSettings>,
    data: &SftData,
    load: &Workload,
    memory: &MemoryPlan,
) -> String {
    let (settings, ranks, lr) = (job.settings(), job.ranks(), data.lr());
    let SftExamples { examples, too_long } = data.examples();
    let (left, needed) = (examples.len(), settings.supervised.train_batch_size);
    let per_epoch = data.steps_per_epoch();
    let tokens: usize = examples.iter().map(Example::tokens).sum();
    let most = needed.div_ceil(ranks.max(1));
    let share = StepShare { most, of: needed, items: "examples" };
    let share = share_line(ranks, share, settings.optimizer.optim);
    let share = share.map(|(name, what)| format!("{name:<12} {what}\n")).unwrap_or_default();
    let is_cut = lr.total_steps < per_epoch.saturating_mul(settings.supervised.num_train_epochs);
    let cut = if is_cut { ", which `max_steps` ends early" } else { "" };
    let trained_tokens: usize = examples.iter().map(|example| example.completion.len()).sum();
    format!(
        "model        {}\n\
         trainable    {}\n\
         examples     {left}, {tokens} tokens, {trained_tokens} trained on; {too_long} too long; {} for validation\n\
         epoch        {per_epoch} steps = {left} examples / {needed}, {} dropped\n\
         run          {} steps in {} epochs{}\n\
         warmup       {} steps to {:e}, then {}\n\
         micro-batch  at most {} tokens\n\
         {share}memory       {}\n",
        settings.run.model,
        load.counts(),
        data.eval().len(),
        left as u64 - per_epoch * needed as u64,
        lr.total_steps,
        settings.supervised.num_train_epochs,
        cut,
        lr.warmup_steps,
        lr.peak,
        lr.kind.decay(),
        settings.run.max_tokens_per_batch,
        memory_summary(memory, ranks),
    )
}
