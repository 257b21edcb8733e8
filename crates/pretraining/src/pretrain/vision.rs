//! Pretraining of the base models of `quickstart --vision` and `quickstart --robot`: a small text model learns to see.
//!
//! First the vision encoder learns to detect objects in frames; then it and the decoder learn text about frames.

mod arm_text;
mod documents;
mod frames;
mod new_model;
mod stages;
mod world;

use std::cell::Cell;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use embodied_r_data::progress::Progress as _;
use embodied_r_grpo::images::{ReferenceTower, RunImages, TowerTraining};
use embodied_r_grpo::model::{LoadOptions, Model as _, VisionPolicy};
use embodied_r_grpo::schedule::{LrSchedule, LrScheduler};
use embodied_r_grpo::settings::{Optim, OptimizerSettings};
use embodied_r_media::store::{ImageStore, StoreOptions};
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{Policy, Precision, Trainable, WeightDtype, WeightFormat};
use embodied_r_vision::{
    FrozenParts, TowerOptions, TrainableTower, VisionProcessor, is_vision_language_model,
};
use serde_json::json;

use self::documents::Documents;
use self::frames::{detection_examples, frame_table};
use self::stages::Stages;
use self::world::{Arm, Rooms, World};
use super::phases::{MAX_POSITIONS, WARMUP_STEPS};
use super::{continued, record};
use crate::args::{Cli, ModelArgs, VisionArgs, WorldName};
use crate::progress::{Lines, StepProgress};
use crate::{detection, lm};

/// All of the vision encoder is trained.
const TRAINED: FrozenParts = FrozenParts { vision_tower: false, aligner: false };

/// Fails if a text model is needed and not given.
pub(super) fn check(args: &ModelArgs) -> Result<(), clap::Error> {
    let is_missing =
        args.vision.vision && args.vision.world == WorldName::Rooms && args.from.is_none();
    match is_missing {
        true => Err(Cli::usage_error(
            "`--vision` needs a text model; give one with `--from`, such as `crates/cli/base`, the bundled one",
        )),
        false => Ok(()),
    }
}

/// Pretrains a vision-language base model.
pub(super) fn run(args: &ModelArgs) -> anyhow::Result<()> {
    match args.vision.world {
        WorldName::Rooms => learn::<Rooms>(args),
        WorldName::Arm => learn::<Arm>(args),
    }
}

fn learn<W: World>(args: &ModelArgs) -> anyhow::Result<()> {
    let (out, vision) = (args.output.as_path(), &args.vision);
    let mut stages = Stages::of(identity(args), out, |model| start(args, model))?;
    if stages.goes_on {
        let model = stages.model.display();
        writeln!(io::stdout(), "going on with the unfinished run in `{model}`")?;
    }
    let lines = Lines::default();
    if vision.detection_steps > 0 && stages.done.found.is_none() {
        let found = detect::<W>(args, &stages.model, &lines)?;
        stages = stages.detected(found)?;
    }
    let trained = read::<W>(args, &stages.model, &lines)?;
    let parameters = Policy::load(out)?.config().parameter_count() + tower_parameters(out)?;
    let found = stages.done.found;
    let mut runs = stages.done.runs.clone();
    runs.push(json!({
        "command": command(args),
        "detection_steps": vision.detection_steps,
        "objects_found": found,
        "steps": vision.vision_steps(),
        "tokens": trained.tokens,
        "loss": trained.loss,
        "parameters": parameters,
        "seconds": stages.seconds(),
        "threads": rayon::current_num_threads(),
        "commit": option_env!("EMBODIED_R_COMMIT"),
    }));
    record(out, &runs)?;
    stages.finish()?;
    if let Some(found) = found {
        writeln!(io::stdout(), "the encoder found {:.1} % of objects", 100.0 * found)?;
    }
    writeln!(
        io::stdout(),
        "{:.2} M parameters; loss {:.4} after {} tokens; saved to {}",
        parameters as f64 / 1e6,
        trained.loss,
        trained.tokens,
        out.display()
    )?;
    Ok(())
}

/// Writes the model that the run starts from into `model`, and returns the record of the runs that made it.
fn start(args: &ModelArgs, model: &Path) -> anyhow::Result<Vec<serde_json::Value>> {
    let Some(from) = &args.from else {
        let text = args.output.join("text-base");
        arm_text::pretrain(args, &text)?;
        let runs = continued(&text)?;
        new_model::write(&text, model, &args.vision, args.seed)?;
        std::fs::remove_dir_all(&text)
            .map_err(embodied_r_files::Error::io("remove", text.as_path()))?;
        return Ok(runs);
    };
    let mut runs = continued(from)?;
    match is_vision_language_model(from) {
        true => new_model::copy(from, model)?,
        false => new_model::write(from, model, &args.vision, args.seed)?,
    }
    if args.vision.world == WorldName::Arm {
        arm_text::continue_training(args, model, &mut runs)?;
    }
    Ok(runs)
}

fn tower_parameters(model: &Path) -> anyhow::Result<usize> {
    Ok(VisionProcessor::of_model(model)?.config().parameter_count())
}

fn optimizer(optim: Optim) -> OptimizerSettings {
    OptimizerSettings {
        optim,
        adam_beta1: 0.9,
        adam_beta2: 0.98,
        adam_epsilon: 1e-8,
        weight_decay: 0.05,
        max_grad_norm: 1.0,
    }
}

fn schedule(peak: f64, steps: u64) -> LrSchedule {
    LrSchedule {
        kind: LrScheduler::Cosine,
        peak,
        warmup_steps: WARMUP_STEPS.min(steps),
        total_steps: steps,
    }
}

/// Trains the vision encoder of `model` to detect objects and saves it; returns the share of objects that it finds.
fn detect<W: World>(args: &ModelArgs, model: &Path, lines: &Lines) -> anyhow::Result<f64> {
    let VisionArgs {
        detection_steps, images_per_step, detection_learning_rate: learning_rate, ..
    } = args.vision;
    let processor = VisionProcessor::of_model(model)?;
    let options = TowerOptions { frozen: TRAINED, precision: Precision::F32, device: Device::Cpu };
    let tower = TrainableTower::load(model, processor.clone(), &options)?;
    let settings = detection::DetectionSettings {
        classes: W::classes(),
        bins: W::bins(),
        images_per_step,
        schedule: schedule(learning_rate, detection_steps),
        optimizer: optimizer(Optim::Adamw),
    };
    let examples = detection_examples::<W>(processor, args.seed, images_per_step);
    let progress = StepProgress { lines, phase: "detecting objects", save: &|| Ok(()) };
    let report = detection::train(&tower, examples, &settings, &progress)?;
    lines.finish();
    let tensors = tower.tensors().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    let trained = Policy::load(model)?.with_encoder_tensors(tensors.collect());
    trained.save(model, &SaveOptions::default())?;
    Ok(report.found)
}

/// Trains encoder and decoder of `base` on text about frames, and saves them into the output directory.
fn read<W: World>(args: &ModelArgs, base: &Path, lines: &Lines) -> anyhow::Result<lm::LmReport> {
    let (out, vision) = (args.output.as_path(), &args.vision);
    new_model::copy(base, out)?;
    let (table, places) = frame_table::<W>(out, args.seed, vision.rooms(), lines)?;
    let table = Arc::new(table);
    let options = StoreOptions {
        model: base.to_owned(),
        format: WeightFormat::F32,
        device: Device::Cpu,
        memory_bytes: 0,
        disk: None,
    };
    let training = TowerTraining {
        frozen: TRAINED,
        learning_rate_scale: vision.encoder_learning_rate / vision.vision_learning_rate,
        activation_bytes: usize::MAX,
        reference: ReferenceTower::Base,
    };
    let frozen = Arc::new(ImageStore::new(table.clone(), options));
    let load_options = LoadOptions {
        base,
        precision: Precision::F32,
        activation_bytes: usize::MAX,
        trainable: Trainable::All,
        seed: args.seed,
        device: Device::Cpu,
        images: Some(Arc::new(RunImages { frozen, training: Some(training) })),
    };
    let model = VisionPolicy::load(base, &load_options)?;
    let settings = lm::LmSettings {
        tokens_per_step: args.tokens_per_step,
        max_tokens_per_batch: args.tokens_per_step + MAX_POSITIONS,
        schedule: schedule(vision.vision_learning_rate, vision.vision_steps()),
        optimizer: optimizer(Optim::Muon),
    };
    let save = || {
        let options = SaveOptions { dtype: WeightDtype::Bf16, ..SaveOptions::default() };
        model.decoder().save(out, &options)
    };
    let tokenizer = Tokenizer::from_dir(out)?;
    let fault = Cell::new(None);
    let documents = Documents::new(&tokenizer, table.processor(), &places, args.seed, &fault);
    let progress = StepProgress { lines, phase: "reading frames", save: &save };
    let trained = lm::train(&model, documents, &settings, &progress);
    lines.finish();
    if let Some(fault) = fault.take() {
        return Err(fault);
    }
    save()?;
    Ok(trained?)
}

/// The command of this run, with the model that it continues.
fn identity(args: &ModelArgs) -> String {
    let command = command(args);
    match &args.from {
        Some(from) => command.replacen("--from DIR", &format!("--from {}", from.display()), 1),
        None => command,
    }
}

/// The command line that reproduces this model from the text model.
fn command(args: &ModelArgs) -> String {
    let VisionArgs {
        world,
        text_steps,
        detection_steps,
        images_per_step,
        detection_learning_rate,
        vision_learning_rate,
        encoder_learning_rate,
        encoder,
        ..
    } = &args.vision;
    let (rooms, vision_steps) = (args.vision.rooms(), args.vision.vision_steps());
    let world = match (world, &args.from) {
        (WorldName::Rooms, _) => " --from DIR".to_owned(),
        (WorldName::Arm, None) => {
            let steps = text_steps.unwrap_or(arm_text::DEFAULT_STEPS);
            format!(" --world arm --text-steps {steps}")
        }
        (WorldName::Arm, Some(_)) => {
            format!(" --world arm --from DIR --text-steps {}", text_steps.unwrap_or(0))
        }
    };
    format!(
        "embodied-r-pretrain model --vision{world} --rooms {rooms} --detection-steps {detection_steps} \
         --images-per-step {images_per_step} --detection-learning-rate {detection_learning_rate} \
         --vision-steps {vision_steps} --vision-learning-rate {vision_learning_rate} \
         --encoder-learning-rate {encoder_learning_rate} --tokens-per-step {} --seed {} \
         --encoder-hidden-size {} --encoder-intermediate-size {} --encoder-depth {} \
         --encoder-heads {} --output DIR",
        args.tokens_per_step,
        args.seed,
        encoder.encoder_hidden_size,
        encoder.encoder_intermediate_size,
        encoder.encoder_depth,
        encoder.encoder_heads,
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: ModelArgs,
    }

    fn runs(folder: &str) -> Vec<serde_json::Value> {
        let path = format!("{}/../cli/base/{folder}/pretrain.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_bundled_models() {
        for (folder, world) in [("vision", "rooms"), ("arm", "arm")] {
            let args = ["pretrain", "--vision", "--world", world, "--output", "x"];
            let command = command(&Cli::parse_from(args).args).replace(" --from DIR", "");
            // As it was spelled when the program made them, from its text base.
            let spelled = command.replace("embodied-r-pretrain model", "embodied-r sim pretrain");
            assert_eq!(runs(folder).last().unwrap()["command"], spelled);
        }
    }

    #[test]
    fn a_run_that_continues_another_model_is_another_run() {
        let of = |from: &str| {
            let args = ["pretrain", "--vision", "--from", from, "--output", "x"];
            identity(&Cli::parse_from(args).args)
        };
        assert!(of("a").contains(" --from a "), "{}", of("a"));
        assert_ne!(of("a"), of("b"));
    }

    #[test]
    fn help_and_page_name_the_defaults_of_the_arm() {
        use clap::CommandFactory as _;

        let args = Cli::parse_from(["pretrain", "--vision", "--world", "arm", "--output", "x"]);
        let vision = &args.args.vision;
        let (text, steps, rooms) = (arm_text::DEFAULT_STEPS, vision.vision_steps(), vision.rooms());
        let help = |name: &str| {
            let command = Cli::command();
            let arg = command.get_arguments().find(|arg| arg.get_id() == name).unwrap();
            arg.get_help().unwrap().to_string()
        };
        assert!(help("text_steps").contains(&format!("default: {text},")));
        assert!(help("vision_steps").contains(&format!("of the arm {steps}]")));
        assert!(help("rooms").contains(&format!("of the arm {rooms}]")));

        let page = include_str!("../../README.md").replace('\n', " ");
        let thousands = |n: u64| format!("{},{:03}", n / 1000, n % 1000);
        let said = format!(
            "({} steps of text, {} of text about frames, {} scenes)",
            thousands(text),
            thousands(steps),
            thousands(rooms)
        );
        assert!(page.contains(&said), "{said}");
    }

    #[test]
    fn the_bundled_model_of_the_arm_was_made_by_one_command_within_two_hours() {
        let runs = runs("arm");
        let commands = runs.iter().filter(|run| run["command"].is_string()).count();
        assert_eq!(commands, 1);
        // The seconds of the command include those of its text.
        let seconds = runs.last().unwrap()["seconds"].as_u64().unwrap();
        assert!(seconds < 7200, "{seconds}");
    }
}
