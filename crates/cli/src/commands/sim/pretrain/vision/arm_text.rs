//! The text model of `sim pretrain --vision --world arm`, before it sees frames.

use std::path::Path;
use std::time::Instant;

use embodied_r_policy::Policy;
use embodied_r_policy::tokenizer::{TrainOptions, train};
use embodied_r_robot::{Kind, PromptStyle, Prompts, Robot};
use embodied_r_sim::arm::{Task, demonstration, listed_document, random_scene, scene_document};
use embodied_r_sim::corpus::Document;
use serde_json::json;

use super::super::phases::Phase;
use super::super::{TOKENIZER_TEXTS, config, record, train_phases};
use crate::args::sim::PretrainArgs;

/// Maximum vocabulary size: numbers with two decimals are one token each.
const VOCAB_SIZE: usize = 1024;

/// Peak learning rate.
const LEARNING_RATE: f64 = 3e-3;

/// Trains a tokenizer and a decoder on text about listed things, and writes both into `out`.
pub(super) fn pretrain(args: &PretrainArgs, out: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    std::fs::create_dir_all(out).map_err(embodied_r_files::Error::io("create", out))?;
    let options = TrainOptions { vocab_size: VOCAB_SIZE, min_frequency: 2, decimals: true };
    let trained = train(tokenizer_texts(args.seed), &options, out)?;
    let policy = Policy::random(&config(args, trained.vocab_size)?, args.seed)?;
    let phase = Phase::of(args.vision.text_steps, LEARNING_RATE, listed_document);
    let trained = train_phases(&policy, args, [phase], out)?;
    let run = json!({
        "text_steps": args.vision.text_steps,
        "tokens": trained.tokens,
        "loss": trained.loss,
        "parameters": policy.config().parameter_count(),
        "seconds": began.elapsed().as_secs(),
        "threads": rayon::current_num_threads(),
    });
    record(out, &[run])
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
