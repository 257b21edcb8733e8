//! The text model of `--vision --world arm`, before it sees frames.

use std::path::Path;
use std::time::Instant;

use embodied_r_policy::Policy;
use embodied_r_random::Rng;
use embodied_r_robot::{Kind, PromptStyle, Prompts, Robot};
use embodied_r_sim::arm::{Task, demonstration, random_scene};
use serde_json::{Value, json};

use super::super::phases::Phase;
use super::super::{TOKENIZER_TEXTS, config, record, train_phases};
use crate::args::ModelArgs;
use crate::arm_corpus::{
    arithmetic_document, lettered_document, lettered_numbers_document, listed_document,
    scene_document,
};
use crate::corpus::Document;
use crate::mimetic;
use crate::tokenizer::{TrainOptions, train};

/// Maximum vocabulary size: numbers with two decimals are one token each.
const VOCAB_SIZE: usize = 1024;

/// Steps of a new model.
pub(super) const DEFAULT_STEPS: u64 = 12_000;

/// Shares of the steps of the first phases: lookups of numbers, lookups, and arithmetic.
const NUMBERS: f64 = 0.07;
const LOOKUPS: f64 = 0.3;
const ARITHMETIC: f64 = 0.36;

/// Fraction of practice documents that are of lookups.
const LOOKED_UP: f64 = 0.3;
/// Fraction of documents about listed things in the last phase; the others are practice.
const LISTED: f64 = 0.3;

/// Peak learning rate of lookups and arithmetic, and of the last phase.
const PRACTICE_LEARNING_RATE: f64 = 5e-3;
const LEARNING_RATE: f64 = 3e-3;

/// Trains a tokenizer and a decoder on text without frames, and writes both into `out`.
pub(super) fn pretrain(args: &ModelArgs, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).map_err(embodied_r_files::Error::io("create", out))?;
    let options = TrainOptions { vocab_size: VOCAB_SIZE, min_frequency: 2, decimals: true };
    let vocab_size = train(tokenizer_texts(args.seed), &options, out)?;
    let policy = Policy::random(&config(args, vocab_size)?, args.seed)?;
    mimetic::initialize(&policy)?;
    record(out, &[learn(args, &policy, DEFAULT_STEPS, out)?])
}

/// Trains a decoder on text without frames if that is asked for, saves it into `out`, and adds this to `runs`.
pub(super) fn continue_training(
    args: &ModelArgs,
    out: &Path,
    runs: &mut Vec<Value>,
) -> anyhow::Result<()> {
    if args.vision.text_steps.is_some_and(|steps| steps > 0) {
        runs.push(learn(args, &Policy::load(out)?, 0, out)?);
    }
    Ok(())
}

/// A lookup document or an arithmetic one.
fn practice_document(seed: u64, index: u64) -> Document {
    match Rng::new(&[seed, index, 59]).chance(LOOKED_UP) {
        true => lettered_document(seed, index),
        false => arithmetic_document(seed, index),
    }
}

/// Text without frames: a document about listed things, or practice, which is shorter.
pub(super) fn document(seed: u64, index: u64) -> Document {
    match Rng::new(&[seed, index, 60]).chance(LISTED) {
        true => listed_document(seed, index),
        false => practice_document(seed, index),
    }
}

/// First lookups, which are learned from weights that have learned nothing else yet: of numbers, which are easier to
/// find, then of positions and directions. Then arithmetic with lookups, and text with all of it.
fn phases(steps: u64) -> [Phase; 4] {
    let of = |share: f64| (share * steps as f64) as u64;
    let [numbers, lookups, arithmetic] = [NUMBERS, LOOKUPS, ARITHMETIC].map(of);
    let others = steps - numbers - lookups - arithmetic;
    [
        Phase::of(numbers, PRACTICE_LEARNING_RATE, lettered_numbers_document),
        Phase::of(lookups, PRACTICE_LEARNING_RATE, lettered_document)
            .after(lettered_numbers_document),
        Phase::of(arithmetic, PRACTICE_LEARNING_RATE, practice_document).after(lettered_document),
        Phase::of(others, LEARNING_RATE, document).after(practice_document),
    ]
}

/// Trains on all phases; returns the record.
fn learn(
    args: &ModelArgs,
    policy: &Policy,
    default_steps: u64,
    out: &Path,
) -> anyhow::Result<Value> {
    let began = Instant::now();
    let steps = args.vision.text_steps.unwrap_or(default_steps);
    let trained = train_phases(policy, args, phases(steps), out)?;
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use embodied_r_policy::tokenizer::Tokenizer;

    use super::*;
    use crate::pretrain::phases::tests::{are, assert_masked, pretrain_args};

    #[test]
    fn lookups_come_first_and_each_phase_begins_with_the_text_of_the_one_before() {
        let phases = phases(600);
        assert_eq!(phases.each_ref().map(|phase| phase.steps), [42, 180, 216, 162]);
        let args = pretrain_args(&[]);
        let texts: [fn(u64, u64) -> Document; 4] =
            [lettered_numbers_document, lettered_document, practice_document, document];
        for (index, (phase, text)) in phases.iter().zip(texts).enumerate() {
            let is_new = are(phase, &args, text);
            assert!(is_new[is_new.len() * 2 / 3..].iter().all(|is_new| *is_new), "{index}");
            let Some(before) = index.checked_sub(1).map(|before| texts[before]) else {
                assert!(is_new.iter().all(|is_new| *is_new));
                continue;
            };
            let is_old = are(phase, &args, before);
            // Practice has lookups, and the last text has practice, so some documents are of both.
            let first = || is_old[..10].iter().zip(&is_new);
            let old = first().filter(|(is_old, _)| **is_old).count();
            let only_new = first().filter(|(is_old, is_new)| **is_new && !**is_old).count();
            assert!(old >= 8 && only_new <= 2, "{index}: {old} {only_new}");
        }
    }

    #[test]
    fn masked_tokens_are_those_of_the_masked_text() {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/base/arm");
        let tokenizer = Tokenizer::from_dir(base.as_ref()).unwrap();
        let (args, fault) = (pretrain_args(&[]), Cell::new(None));
        let (mut seen, mut chats) = (0, 0);
        for text in [lettered_document, listed_document] {
            let phase = Phase::of(600, LEARNING_RATE, text);
            for (index, example) in (0..100).zip(phase.documents(&tokenizer, &args, &fault)) {
                let document = text(args.seed, index);
                let masked = assert_masked(&example, &document, &tokenizer);
                seen += masked;
                chats += if document.system.is_some() { masked } else { 0 };
            }
        }
        assert!(seen > 600 && chats > 100, "{seen} {chats}");
    }

    #[test]
    fn text_has_all_kinds_of_documents() {
        let part = |text: fn(u64, u64) -> Document, of: fn(u64, u64) -> Document| {
            (0..1000).filter(|index| text(3, *index) == of(3, *index)).count() as f64 / 1000.0
        };
        for (part, expected) in [
            (part(practice_document, lettered_document), LOOKED_UP),
            (part(practice_document, arithmetic_document), 1.0 - LOOKED_UP),
            (part(document, listed_document), LISTED),
            (part(document, practice_document), 1.0 - LISTED),
        ] {
            assert!((part - expected).abs() < 0.06, "{part} for {expected}");
        }
    }
}
