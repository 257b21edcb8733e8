//! `embodied-r plan`.

mod captioner;
mod place;
mod report;
mod text;

use std::path::Path;

use anyhow::Context as _;
use embodied_r_grpo::Error;
use embodied_r_grpo::memory_plan::Load;
use embodied_r_grpo::plan::Plan;
use embodied_r_grpo::roofline::Estimate;
use embodied_r_grpo::roofline::fit::Wanted;
use embodied_r_grpo::settings::{Recompute, Train};
use embodied_r_policy::ModelConfig;
use embodied_r_policy::config::PUBLISHED;
use embodied_r_rewards::Schedule as Stages;

use crate::args::plan::{GradientsName, PlanArgs};
use crate::commands::train::{memory, session::explain};
use crate::exit::{Status, Usage};
use crate::output::{out, outln};
use crate::settings::Layers;
use place::Where;
use report::{Lengths, Report};

/// Estimate memory and time of a run.
pub(crate) fn run(args: PlanArgs) -> anyhow::Result<Status> {
    if let Some(name) = &args.captioner {
        return captioner::run(name, &args);
    }
    let settings = settings(&args)?;
    let config = shape(&settings.model)?;
    let stages = settings.stages().map_err(|faults| explain(Error::Settings(faults)))?;
    let place = Where::of(&args, settings.precision)?;
    let wanted = wanted(&args, &settings, &stages, &config, &place)?;
    let lengths = Lengths {
        prompt: args.prompt.unwrap_or(settings.max_prompt_length),
        completion: args.completion.unwrap_or(settings.max_completion_length),
    };
    let (load, plan) = (wanted.load(), wanted.memory());
    let usual = Load { prompt: lengths.prompt, completion: lengths.completion, ..load };
    let estimate = Estimate::new(&config, &usual, &plan, &place.machine, &place.network);
    let steps = steps(&args, &settings, &stages)?;
    let report = Report::new(&settings, &wanted, &place, lengths, &estimate, steps);
    match args.json {
        true => outln!("{}", serde_json::to_string_pretty(&report)?)?,
        false => out!("{}", text::of(&report))?,
    }
    Ok(if report.memory.fits { Status::Done } else { Status::Partial })
}

fn settings(args: &PlanArgs) -> anyhow::Result<Train> {
    for (name, value) in [
        ("--prompt", args.prompt),
        ("--completion", args.completion),
        ("--gpus", args.gpus),
        ("--nodes", args.nodes),
        ("--questions", args.questions),
    ] {
        anyhow::ensure!(value != Some(0), Usage(format!("`{name}` must be above 0")));
    }
    let from = match &args.config {
        Some(file) => Layers::default().file(file)?,
        None => Layers::default(),
    };
    from.pairs(&args.sets).flags(&[("model", args.model.clone())]).resolve(&["model"])
}

/// The decoder's shape, from its files or by its name.
fn shape(model: &str) -> anyhow::Result<ModelConfig> {
    let path = Path::new(model);
    if path.exists() {
        return ModelConfig::of_model(path).map_err(|error| Usage(error.to_string()).into());
    }
    ModelConfig::published(model).ok_or_else(|| {
        let known = PUBLISHED.join(", ");
        let what = format!(
            "`{model}` is neither a folder, nor a GGUF file, nor a known shape; known are {known}"
        );
        Usage(what).into()
    })
}

fn wanted<'a>(
    args: &PlanArgs,
    settings: &Train,
    stages: &Stages,
    config: &'a ModelConfig,
    place: &Where,
) -> anyhow::Result<Wanted<'a>> {
    let counts = |settings: &Train| {
        let counts = settings.trainable().counts(config);
        counts.map_err(|error| Usage(error.to_string()))
    };
    let adapter = counts(&Train { use_peft: true, ..settings.clone() });
    let trained = counts(settings)?;
    let taping = memory::taping(settings, None);
    let longest = settings.max_prompt_length;
    Ok(Wanted {
        config,
        whole: Load::of_train(settings, stages, trained, longest, taping),
        recompute: settings.recompute,
        bf16_gradients: args.gradients == Some(GradientsName::Bf16),
        blocks: false,
        place: place.place,
        usable: place.usable,
        // Settings that freeze a part name no adapter; then none is advised.
        adapter: adapter.unwrap_or(trained),
    })
}

/// Steps of the whole run, where the number of questions is given.
fn steps(args: &PlanArgs, settings: &Train, stages: &Stages) -> anyhow::Result<Option<u64>> {
    let Some(questions) = args.questions else { return Ok(None) };
    let per_epoch = (questions / settings.questions_per_step().max(1)) as u64;
    let needed = settings.questions_per_step();
    let few = || Usage(format!("`--questions` is {questions}, one step takes {needed}"));
    anyhow::ensure!(per_epoch > 0, few());
    let plan = Plan::new(settings, stages, per_epoch).map_err(Error::Settings);
    Ok(Some(plan.map_err(explain).context("cannot plan the run")?.total_steps))
}

/// The name of a setting's value.
fn name(recompute: Recompute) -> &'static str {
    match recompute {
        Recompute::Auto => "auto",
        Recompute::All => "all",
        Recompute::None => "none",
    }
}
