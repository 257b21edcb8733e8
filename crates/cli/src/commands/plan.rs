//! `embodied-r plan`.

mod captioner;
mod hardware;
mod images;
mod report;
mod shape;
mod text;

use anyhow::Context as _;
use embodied_r_grpo::Error;
use embodied_r_grpo::estimate::memory_plan::Workload;
use embodied_r_grpo::estimate::roofline::StepEstimate;
use embodied_r_grpo::estimate::roofline::fit::PlannedRun;
use embodied_r_grpo::schedule::training_plan::TrainingPlan;
use embodied_r_grpo::settings::GrpoSettings;
use embodied_r_policy::ModelConfig;
use embodied_r_rewards::RewardSchedule as Stages;

use crate::args::plan::PlanArgs;
use crate::commands::train::{explain::explain, memory};
use crate::exit::{Status, Usage};
use crate::output::{out, outln};
use crate::settings::Layers;
use hardware::Hardware;
use images::QuestionImages;
use report::{Estimates, Lengths, Report, Steps};
use shape::shape;

/// Estimate the memory and time of a run.
pub(crate) fn run(args: PlanArgs) -> anyhow::Result<Status> {
    if let Some(name) = &args.captioner {
        return captioner::run(name, &args);
    }
    let settings = settings(&args)?;
    let config = shape(&settings.run.model)?;
    let stages = settings.stages().map_err(|faults| explain(Error::Settings(faults)))?;
    let hardware = Hardware::of(&args, settings.run.precision)?;
    let images = QuestionImages::of(&args, &settings)?;
    let wanted = wanted(&settings, &stages, &config, &hardware, images.as_ref())?;
    let image_tokens = images.as_ref().map_or(0, |images| images.tokens);
    let text = args.prompt.map(|text| text + image_tokens);
    let lengths = Lengths {
        prompt: text.unwrap_or(settings.rollout.max_prompt_length),
        completion: args.completion.unwrap_or(settings.loss.max_completion_length),
    };
    let plan = wanted.memory();
    let estimate = |split_groups: bool| {
        let Lengths { prompt, completion } = lengths;
        let total_workload = Workload { prompt, completion, split_groups, ..wanted.total_workload };
        let usual = PlannedRun { total_workload, ..wanted }.workload();
        StepEstimate::new(&config, &usual, &plan, &hardware.machine, &hardware.network)
    };
    let estimates = Estimates { step: estimate(true), whole_groups: estimate(false) };
    let steps = steps(&args, &settings, &stages)?;
    let report =
        Report::new(&settings, &wanted, &hardware, lengths, &estimates, steps, images.as_ref());
    match args.json {
        true => outln!("{}", serde_json::to_string_pretty(&report)?)?,
        false => out!("{}", text::of(&report))?,
    }
    Ok(if report.memory.fits { Status::Done } else { Status::Partial })
}

fn settings(args: &PlanArgs) -> anyhow::Result<GrpoSettings> {
    for (name, value) in [
        ("--prompt", args.prompt),
        ("--completion", args.completion),
        ("--gpus", args.gpus),
        ("--nodes", args.nodes),
        ("--ranks", args.ranks),
        ("--questions", args.questions),
    ] {
        anyhow::ensure!(value != Some(0), Usage(format!("`{name}` must be above 0")));
    }
    let from = match &args.config {
        Some(file) => Layers::default().defaults_on(args.device).file(file)?,
        None => Layers::default().defaults_on(args.device),
    };
    from.pairs(&args.sets).flags(&[("model", args.model.clone())]).resolve(&["model"])
}

fn wanted<'a>(
    settings: &GrpoSettings,
    stages: &Stages,
    config: &'a ModelConfig,
    hardware: &Hardware,
    images: Option<&QuestionImages>,
) -> anyhow::Result<PlannedRun<'a>> {
    let counts = |settings: &GrpoSettings| {
        let counts = settings.trainable().counts(config);
        counts.map_err(|error| Usage(error.to_string()))
    };
    let adapter = counts(&settings.clone().with(|s| s.trainable.use_peft = true));
    let trained = counts(settings)?;
    let cache_policy = memory::cache_policy(settings, None);
    let longest = settings.rollout.max_prompt_length;
    let load = Workload::for_training(settings, stages, trained, longest, cache_policy);
    let vision = images.map(|images| {
        let reference = settings.reference_tower(stages);
        images.load.trained_as(&images.config, &settings.trainable(), reference)
    });
    Ok(PlannedRun {
        config,
        total_workload: Workload { vision, ..load },
        recompute: settings.run.recompute,
        precision: settings.run.precision,
        placement: hardware.placement,
        usable: hardware.usable,
        // Settings that freeze parts of the model exclude an adapter; then none is suggested.
        lora_counts: adapter.unwrap_or(trained),
    })
}

/// Steps of the run, if the number of questions is given.
fn steps(
    args: &PlanArgs,
    settings: &GrpoSettings,
    stages: &Stages,
) -> anyhow::Result<Option<Steps>> {
    let Some(questions) = args.questions else { return Ok(None) };
    let per_epoch = (questions / settings.rollout.questions_per_step().max(1)) as u64;
    let needed = settings.rollout.questions_per_step();
    let few = || {
        Usage(format!(
            "`--questions` must be at least {needed}, the questions of one step, not {questions}"
        ))
    };
    anyhow::ensure!(per_epoch > 0, few());
    let plan = TrainingPlan::new(settings, stages, per_epoch).map_err(Error::Settings);
    let total = plan.map_err(explain).context("cannot plan the run")?.total_steps;
    Ok(Some(Steps { total, per_epoch }))
}
