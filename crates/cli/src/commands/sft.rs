//! `embodied-r sft`.

use std::path::Path;

use embodied_r_grpo::data::conversations::{self, SftExamples};
use embodied_r_grpo::data::length_limit::LengthLimit;
use embodied_r_grpo::estimate::memory_plan::{MemoryPlan, Workload};
use embodied_r_grpo::process_group::ProcessGroup;
use embodied_r_grpo::settings::SftSettings;
use embodied_r_grpo::trainer::sft::{SftData, SftInputs, SftTrainer};
use embodied_r_grpo::update::supervised::Example;
use embodied_r_policy::Policy;

use super::train::explain::explain;
use super::train::job::Job;
use super::train::memory::{StepShare, memory_summary, share_line};
use super::train::session::{self, DataArgs, Session};
use crate::args::sft::SftArgs;
use crate::exit::Status;
use crate::ranks::run_job;

/// Fine-tune on conversations (cold start).
pub(crate) fn run(args: SftArgs) -> anyhow::Result<Status> {
    let job = args.run.job.clone();
    let folder = || session::folder::<SftSettings>(&args.run);
    run_job(&job, folder, |process_group| run_as(&args, process_group))
}

fn run_as(args: &SftArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    let data = DataArgs { data: args.data.as_deref(), eval_data: args.eval_data.as_deref() };
    let session = Session::<SftSettings>::open(&args.run, data, process_group)?;
    let job = Job::new(&args.run, session, process_group)?;
    let settings = job.settings();

    let limit = settings.example_limit(job.config.max_position_embeddings);
    let examples = read(&job, &settings.run.data, &limit)?;
    let eval = match &settings.run.eval_data {
        Some(file) => read(&job, file, &limit)?.examples,
        None => Vec::new(),
    };
    let data = SftData::new(settings, examples, eval).map_err(explain)?;
    let load = Workload::for_sft(settings, job.counts, &data.examples().examples);
    let memory = job.memory(load)?;
    if args.run.dry_run {
        return job.dry_run(&plan(&job, &data, &memory));
    }
    job.run(&memory, |job, run, sinks| {
        let inputs = SftInputs { settings: job.settings(), data, run };
        match job.checkpoint() {
            Some(checkpoint) => SftTrainer::<Policy>::resume(checkpoint, inputs, sinks)?.run(),
            None => SftTrainer::<Policy>::from_base(inputs, sinks)?.run(),
        }
    })
}

/// The examples of a file; warns about those left out because of their length.
fn read(
    job: &Job<'_, SftSettings>,
    file: &Path,
    limit: &LengthLimit,
) -> anyhow::Result<SftExamples> {
    let found = conversations::read(file, job.tokenizer.as_ref(), limit).map_err(explain)?;
    if found.too_long > 0 {
        job.warn(&format!(
            "dropped {} examples of `{}` that exceed {limit}, prompt included",
            found.too_long,
            file.display()
        ));
    }
    Ok(found)
}

/// The plan of the run as text.
fn plan(job: &Job<'_, SftSettings>, data: &SftData, memory: &MemoryPlan) -> String {
    let (settings, ranks, lr) = (job.settings(), job.ranks(), data.lr());
    let SftExamples { examples, too_long } = data.examples();
    let (left, needed) = (examples.len(), settings.supervised.train_batch_size);
    let per_epoch = data.steps_per_epoch();
    let tokens: usize = examples.iter().map(Example::tokens).sum();
    let most = needed.div_ceil(ranks.max(1));
    let share = StepShare { most, of: needed, items: "examples" };
    let share = share_line(ranks, share, settings.optimizer.optim);
    let share = share.map(|(name, what)| format!("{name:<12} {what}\n")).unwrap_or_default();
    let trained_tokens: usize = examples.iter().map(|example| example.completion.len()).sum();
    format!(
        "model        {}\n\
         trainable    {}\n\
         examples     {left}, {tokens} tokens, {trained_tokens} trained on; {too_long} too long; {} for validation\n\
         epoch        {per_epoch} steps = {left} examples / {needed}, {} dropped\n\
         run          {} steps in {} epochs\n\
         warmup       {} steps to {:e}, then {}\n\
         micro-batch  at most {} tokens\n\
         {share}memory       {}\n",
        settings.run.model,
        job.counts,
        data.eval().len(),
        left as u64 - per_epoch * needed as u64,
        lr.total_steps,
        settings.supervised.num_train_epochs,
        lr.warmup_steps,
        lr.peak,
        lr.kind.decay(),
        settings.run.max_tokens_per_batch,
        memory_summary(memory, ranks),
    )
}
