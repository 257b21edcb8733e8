//! The text model of `sim pretrain --vision --world arm`, before it sees frames.

use std::path::Path;
use std::time::Instant;

use embodied_r_policy::Policy;
use embodied_r_policy::tokenizer::{TrainOptions, train};
use embodied_r_random::Rng;
use embodied_r_robot::{Kind, PromptStyle, Prompts, Robot};
use embodied_r_sim::arm::{
    Task, arithmetic_document, demonstration, lettered_document, lettered_numbers_document,
    listed_document, random_scene, scene_document,
};
use embodied_r_sim::corpus::Document;
use serde_json::{Value, json};

use super::super::phases::Phase;
use super::super::{TOKENIZER_TEXTS, config, record, train_phases};
use crate::args::sim::PretrainArgs;

/// Maximum vocabulary size: numbers with two decimals are one token each.
const VOCAB_SIZE: usize = 1024;

/// Steps of a new model.
pub(super) const DEFAULT_STEPS: u64 = 8000;

/// Shares of the steps of the first phases: text about listed things, arithmetic, lookups of single numbers, and lookups.
const LISTED: f64 = 0.12;
const ARITHMETIC: f64 = 0.25;
const NUMBERS: f64 = 0.13;
const LOOKUPS: f64 = 0.2;

/// Peak learning rate of lookups, and of all other text.
const LOOKUP_LEARNING_RATE: f64 = 5e-3;
const LEARNING_RATE: f64 = 3e-3;

/// Trains a tokenizer and a decoder on text without frames, and writes both into `out`.
pub(super) fn pretrain(args: &PretrainArgs, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).map_err(embodied_r_files::Error::io("create", out))?;
    let options = TrainOptions { vocab_size: VOCAB_SIZE, min_frequency: 2, decimals: true };
    let trained = train(tokenizer_texts(args.seed), &options, out)?;
    let policy = Policy::random(&config(args, trained.vocab_size)?, args.seed)?;
    record(out, &[learn(args, &policy, DEFAULT_STEPS, out)?])
}

/// Trains a decoder on text without frames if that is asked for, saves it into `out`, and adds this to `runs`.
pub(super) fn continue_training(
    args: &PretrainArgs,
    out: &Path,
    runs: &mut Vec<Value>,
) -> anyhow::Result<()> {
    if args.vision.text_steps.is_some_and(|steps| steps > 0) {
        runs.push(learn(args, &Policy::load(out)?, 0, out)?);
    }
    Ok(())
}

/// A lookup document or an arithmetic one, whichever documents of a phase it is mixed in for.
fn practice_document(seed: u64, index: u64) -> Document {
    match Rng::new(&[seed, index, 59]).chance(0.5) {
        true => lettered_document(seed, index),
        false => arithmetic_document(seed, index),
    }
}

/// First text about listed things, which teaches to copy, then arithmetic, which teaches how numbers are ordered, then lookups
/// of single numbers, which are easier to find than positions and directions, then these, then all of it; returns the record.
fn learn(
    args: &PretrainArgs,
    policy: &Policy,
    default_steps: u64,
    out: &Path,
) -> anyhow::Result<Value> {
    let began = Instant::now();
    let steps = args.vision.text_steps.unwrap_or(default_steps);
    let of = |share: f64| (share * steps as f64) as u64;
    let [listed, arithmetic, numbers, lookups] = [LISTED, ARITHMETIC, NUMBERS, LOOKUPS].map(of);
    let others = steps - listed - arithmetic - numbers - lookups;
    let phases = [
        Phase::of(listed, LEARNING_RATE, listed_document),
        Phase::of(arithmetic, LEARNING_RATE, arithmetic_document).after(listed_document),
        Phase::of(numbers, LOOKUP_LEARNING_RATE, lettered_numbers_document),
        Phase::of(lookups, LOOKUP_LEARNING_RATE, lettered_document)
            .after(lettered_numbers_document),
        Phase::of(others, LEARNING_RATE, listed_document).after(practice_document),
    ];
    let trained = train_phases(policy, args, phases, out)?;
    Ok(json!({
        "text_steps": steps,
        "tokens": trained.tokens,
        "loss": trained.loss,
        "parameters": policy.config().parameter_count(),
        "seconds": began.elapsed().as_secs(),
        "threads": rayon::current_num_threads(),
    }))
}

/// Text with the vocabulary of pretraining, of prompts, and of what robots do.
fn tokenizer_texts(seed: u64) -> impl Iterator<Item = String> + Send {
    let documents = (0..TOKENIZER_TEXTS).flat_map(move |index| {
        let documents =
            [listed_document(seed, index), scene_document(&random_scene(seed, index), seed, index)];
        documents.map(|Document { context, statements, .. }| format!("{context}\n{statements}"))
    });
    let tasks = (0..TOKENIZER_TEXTS).map(move |index| {
        let task = Task::ALL[(index % Task::ALL.len() as u64) as usize];
        let plan = demonstration(seed, task, index / 10).plan.join(" ").to_lowercase();
        let plan = plan.replace("the ", "");
        Kind::ALL.map(|kind| prompt(kind, task)).join("\n") + "\n" + &plan
    });
    documents.chain(tasks)
}

/// A prompt about a task, without options.
fn prompt(kind: Kind, task: Task) -> String {
    let robot = Robot::default();
    let prompts = Prompts { robot: &robot, style: PromptStyle::Compact, decimals: 2 };
    prompts.prompt(kind, task.instruction(), robot.origin, &[])
}
