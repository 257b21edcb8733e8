//! `embodied-r inspect`: a model's outputs for given tokens, to compare with other implementations.

mod caption;
mod loss;
mod sequences;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use embodied_r_grpo::images::ReferenceTower;
use embodied_r_grpo::model::{LoadOptions, Model as _, VisionPolicy};
use embodied_r_grpo::settings::VisionSettings;
use embodied_r_media::table::ImageTable;
use embodied_r_policy::{
    Error, GenerationRequest, Group, Policy, Precision, Prompt, SamplingParams, Trainable, lora,
    tokenizer,
};
use sequences::Sequences;
use serde::Serialize;
use serde_json::json;

use crate::args::inspect::{GreedyArgs, InspectArgs, InspectCommand, SequencesArgs};
use crate::device;
use crate::exit::Status;
use crate::hub;
use crate::output::outln;
use crate::run_images::{ImageEncoding, image_table, run_images};

/// Bytes of activations that a pass saves; the rest is recomputed.
const ACTIVATION_BYTES: usize = 4 << 30;

/// Inspect a model's outputs.
pub(crate) fn run(args: InspectArgs) -> anyhow::Result<Status> {
    match args.command {
        InspectCommand::Logprobs(args) => logprobs(&args),
        InspectCommand::Greedy(args) => greedy(&args),
        InspectCommand::Caption(args) => caption::run(&args),
        InspectCommand::Loss(args) => loss::run(&args),
    }
}

/// The model on its device.
fn loaded(args: &SequencesArgs, folder: &Path) -> anyhow::Result<Policy> {
    let device = device::open(args.device)?;
    Ok(Policy::load_on(&device, folder, args.precision.into())?)
}

/// The vision-language model in `folder` with the images of `table`.
fn vision_policy(
    folder: &Path,
    table: ImageTable,
    (vision, trainable): (&VisionSettings, Trainable),
    precision: Precision,
    device: &Device,
) -> anyhow::Result<VisionPolicy> {
    let encoding = ImageEncoding {
        precision,
        device: device.clone(),
        learning_rate: 1.0,
        activation_bytes: ACTIVATION_BYTES,
        disk: None,
        reference: ReferenceTower::Base,
    };
    let images = run_images(folder, table, vision, encoding);
    let base = base_of(folder, &trainable)?;
    let load_options = LoadOptions {
        base: &base,
        precision,
        activation_bytes: ACTIVATION_BYTES,
        trainable,
        seed: 0,
        device: device.clone(),
        images: Some(Arc::new(images)),
    };
    Ok(VisionPolicy::load(folder, &load_options)?)
}

/// The base model of `trainable` for a model in `folder`, which may be an adapter to train further.
fn base_of(folder: &Path, trainable: &Trainable) -> anyhow::Result<PathBuf> {
    let base = match trainable {
        Trainable::Lora(_) => lora::base_model_dir(folder)?,
        _ => None,
    };
    Ok(base.unwrap_or_else(|| folder.to_owned()))
}

fn logprobs(args: &SequencesArgs) -> anyhow::Result<Status> {
    let sequences = sequences::read(&args.data)?;
    let folder = hub::decoder(&args.model, None)?;
    let logprobs = match sequences.has_images() {
        true => logprobs_with_images(args, &sequences, &folder)?,
        false => {
            let policy = loaded(args, &folder)?;
            // Each in a pass of its own, so that its numbers do not depend on the others.
            let score = |(index, ids): (usize, Vec<u32>)| {
                let scores = policy.score(&[after_the_first(&ids)], 1.0);
                Ok(scores.map_err(|error| error_at(index, error))?.logps)
            };
            let ids = sequences.into_ids()?.into_iter().enumerate();
            ids.map(score).collect::<anyhow::Result<Vec<_>>>()?
        }
    };
    print(args.json, "logprobs", &logprobs)
}

fn logprobs_with_images(
    args: &SequencesArgs,
    sequences: &Sequences,
    folder: &Path,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let vision = VisionSettings::default();
    let mut table = image_table(folder, &vision)?;
    let batch = sequences.batch();
    let relative_to = args.data.parent().unwrap_or(Path::new(""));
    let prompts = batch.prompts(Some(&mut table), relative_to)?;
    let device = device::open(args.device)?;
    let trained = (&vision, Trainable::All);
    let policy = vision_policy(folder, table, trained, args.precision.into(), &device)?;
    let score = |prompt: &Prompt| Ok(policy.score_prompt(prompt)?);
    prompts.iter().map(score).collect()
}

/// A sequence with its first token as the prompt.
fn after_the_first(ids: &[u32]) -> Group {
    let (first, rest) = ids.split_at(ids.len().min(1));
    Group { prompt: first.to_vec().into(), completions: vec![rest.to_vec()] }
}

/// The error with the sequence's index in the file.
fn error_at(index: usize, error: Error) -> Error {
    match error {
        Error::Sequence { fault, .. } => Error::Sequence { index, fault },
        error => error,
    }
}

fn greedy(args: &GreedyArgs) -> anyhow::Result<Status> {
    let GreedyArgs { sequences: args, max_tokens } = args;
    let sequences = sequences::read(&args.data)?.into_ids()?;
    let folder = hub::decoder(&args.model, None)?;
    let stop_ids = tokenizer::stop_ids(&folder)?;
    let policy = loaded(args, &folder)?;
    let requests: Vec<GenerationRequest> = sequences
        .into_iter()
        .map(|prompt| GenerationRequest {
            prompt: prompt.into(),
            samples: 1,
            stream: 0,
            first_sample: 0,
        })
        .collect();
    let sampling =
        SamplingParams { max_new_tokens: *max_tokens, stop_ids, ..SamplingParams::greedy() };
    let samples = policy.generate(&requests, &sampling, &|_| {})?;
    let tokens: Vec<Vec<u32>> = samples.into_iter().flatten().map(|sample| sample.ids).collect();
    print(args.json, "tokens", &tokens)
}

/// A JSON object, or one line per sequence.
fn print<T: Display + Serialize>(
    json: bool,
    name: &str,
    rows: &[Vec<T>],
) -> anyhow::Result<Status> {
    if json {
        outln!("{}", json!({ name: rows }))?;
        return Ok(Status::Done);
    }
    for row in rows {
        outln!("{}", row.iter().map(T::to_string).collect::<Vec<_>>().join(" "))?;
    }
    Ok(Status::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_faulty_sequence_is_that_in_the_file() {
        let error = Error::Sequence { index: 0, fault: "is empty".into() };
        assert!(matches!(error_at(42, error), Error::Sequence { index: 42, .. }));
    }
}
