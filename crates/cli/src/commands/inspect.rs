//! `embodied-r inspect`: a model's outputs for given tokens, to compare with other implementations.

mod caption;
mod loss;

use std::fmt::Display;
use std::path::Path;

use anyhow::Context as _;
use embodied_r_policy::{Error, GenerationRequest, Group, Policy, SamplingParams, tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::inspect::{GreedyArgs, InspectArgs, InspectCommand, SequencesArgs};
use crate::device;
use crate::exit::Status;
use crate::hub;
use crate::output::outln;

/// Inspect a model's outputs.
pub(crate) fn run(args: InspectArgs) -> anyhow::Result<Status> {
    match args.command {
        InspectCommand::Logprobs(args) => logprobs(&args),
        InspectCommand::Greedy(args) => greedy(&args),
        InspectCommand::Caption(args) => caption::run(&args),
        InspectCommand::Loss(args) => loss::run(&args),
    }
}

/// The input file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    sequences: Vec<Vec<u32>>,
}

fn read(file: &Path) -> anyhow::Result<Vec<Vec<u32>>> {
    let text = std::fs::read(file).map_err(embodied_r_files::Error::io("read", file))?;
    let Input { sequences } = serde_json::from_slice(&text).with_context(|| {
        format!("cannot parse `{}` as `{{\"sequences\": [[1, 2, …], …]}}`", file.display())
    })?;
    Ok(sequences)
}

/// The model on its device.
fn loaded(args: &SequencesArgs, folder: &Path) -> anyhow::Result<Policy> {
    let device = device::open(args.device)?;
    Ok(Policy::load(folder)?.with_precision(args.precision.into()).to_device(&device)?)
}

fn logprobs(args: &SequencesArgs) -> anyhow::Result<Status> {
    let sequences = read(&args.data)?;
    let policy = loaded(args, &hub::decoder(&args.model, None)?)?;
    // Each in a pass of its own, so that its numbers do not depend on the others.
    let score = |(index, ids): (usize, &Vec<u32>)| {
        let scores = policy.score(&[after_the_first(ids)], 1.0);
        Ok(scores.map_err(|error| error_at(index, error))?.logps)
    };
    let logprobs = sequences.iter().enumerate().map(score).collect::<anyhow::Result<Vec<_>>>()?;
    print(args.json, "logprobs", &logprobs)
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
    let sequences = read(&args.data)?;
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
