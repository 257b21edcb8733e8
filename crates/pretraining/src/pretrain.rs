//! `embodied-r-pretrain model`.

mod phases;
mod vision;

use std::cell::Cell;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use embodied_r_data::Progress as _;
use embodied_r_data::system_prompt::{Given, SystemPromptPreset};
use embodied_r_files::write_atomic;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{ModelConfig, Policy, WeightDtype};
use embodied_r_sim::{Category, judge_example, text_question};
use serde_json::json;

use crate::args::{Cli, ModelArgs};
use crate::corpus::{self, Document};
use crate::lm;
use crate::progress::{Lines, StepProgress};
use crate::tokenizer::{TrainOptions, train};
use phases::{MAX_POSITIONS, Phase, phases};

/// Documents, and questions, that the tokenizer is trained on.
const TOKENIZER_TEXTS: u64 = 3000;

/// File with the commands that made a model, and their results.
const RECORD: &str = "pretrain.json";

/// Pretrain the quickstart's small base model.
pub(crate) fn run(args: &ModelArgs) -> anyhow::Result<()> {
    vision::check(args)?;
    std::fs::create_dir_all(&args.output)
        .map_err(embodied_r_files::Error::io("create", args.output.as_path()))?;
    if args.vision.vision {
        return vision::run(args);
    }
    let began = Instant::now();
    let (policy, before) = match &args.from {
        Some(from) => continue_from(from, &args.output)?,
        None => (random(args)?, Vec::new()),
    };
    let parameters = policy.config().parameter_count();
    writeln!(io::stdout(), "{:.2} M parameters", parameters as f64 / 1e6)?;
    let Trained { tokens, loss } = train_phases(&policy, args, phases(args), &args.output)?;
    let mut runs = before;
    runs.push(json!({
        "command": command(args),
        "steps": args.steps,
        "tokens": tokens,
        "loss": loss,
        "parameters": parameters,
        "seconds": began.elapsed().as_secs(),
        "threads": rayon::current_num_threads(),
        "commit": option_env!("EMBODIED_R_COMMIT"),
    }));
    record(&args.output, &runs)?;
    let saved = args.output.display();
    writeln!(io::stdout(), "loss {loss:.4} after {tokens} tokens; saved to {saved}")?;
    Ok(())
}

/// What [`train_phases`] did.
struct Trained {
    tokens: u64,
    /// Of the last step.
    loss: f64,
}

/// Trains a model on one phase after the other, and saves it into `out`, which has its tokenizer.
fn train_phases(
    policy: &Policy,
    args: &ModelArgs,
    phases: impl IntoIterator<Item = Phase>,
    out: &Path,
) -> anyhow::Result<Trained> {
    let tokenizer = Tokenizer::from_dir(out)?;
    let lines = Lines::default();
    let save =
        || policy.save(out, &SaveOptions { dtype: WeightDtype::Bf16, ..SaveOptions::default() });
    let progress = StepProgress { lines: &lines, phase: "pretraining", save: &save };
    let mut done = Trained { tokens: 0, loss: f64::NAN };
    for phase in phases {
        let settings = phase.settings(args.tokens_per_step);
        let fault = Cell::new(None);
        let documents = phase.documents(&tokenizer, args, &fault);
        let trained = lm::train(policy, documents, &settings, &progress);
        lines.finish();
        if let Some(fault) = fault.take() {
            return Err(fault.into());
        }
        let trained = trained?;
        done.tokens += trained.tokens;
        done.loss = trained.loss;
    }
    save()?;
    Ok(done)
}

/// A randomly initialized model; trains its tokenizer into the output folder.
fn random(args: &ModelArgs) -> anyhow::Result<Policy> {
    let options =
        TrainOptions { vocab_size: args.shape.vocab_size, min_frequency: 2, decimals: false };
    let vocab_size = train(tokenizer_texts(args.seed), &options, &args.output)?;
    Ok(Policy::random(&config(args, vocab_size)?, args.seed)?)
}

/// An earlier run's model and record; copies its tokenizer into the output folder.
fn continue_from(from: &Path, out: &Path) -> anyhow::Result<(Policy, Vec<serde_json::Value>)> {
    let policy = Policy::load(from)?;
    Tokenizer::from_dir(from)?.save(out)?;
    Ok((policy, continued(from)?))
}

/// The record of the runs that made the model in `from`.
fn continued(from: &Path) -> anyhow::Result<Vec<serde_json::Value>> {
    let record = from.join(RECORD);
    let text =
        std::fs::read(&record).map_err(embodied_r_files::Error::io("read", record.as_path()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot parse `{}`", record.display()))
}

/// Writes the record of the runs that made the model in `out`.
fn record(out: &Path, runs: &[serde_json::Value]) -> anyhow::Result<()> {
    Ok(write_atomic(&out.join(RECORD), &serde_json::to_vec_pretty(runs)?)?)
}

/// Text with the vocabulary of pretraining and of the quickstart's prompts, without rationales.
fn tokenizer_texts(seed: u64) -> impl Iterator<Item = String> + Send {
    let documents = (0..TOKENIZER_TEXTS).map(move |i| {
        let Document { context, statements, .. } = corpus::chat_document(seed, i);
        format!("{context}\n{statements}")
    });
    let questions = (0..TOKENIZER_TEXTS).filter_map(move |i| {
        let prompt = text_question(seed, i, &Category::ALL)?.perceived().question;
        let system = SystemPromptPreset::Bearings.text(Given::Bearings);
        Some(format!("{system}\n{prompt}"))
    });
    let judged = (0..TOKENIZER_TEXTS / 10).filter_map(move |i| {
        let example = judge_example(seed, i, &Category::ALL)?;
        Some(format!("{}\n{}\n{}", example.system, example.user, example.letter))
    });
    documents.chain(questions).chain(judged)
}

fn config(args: &ModelArgs, vocab_size: usize) -> anyhow::Result<ModelConfig> {
    let shape = &args.shape;
    let config = json!({
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": true,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": 0.08,
    });
    ModelConfig::from_json(&config).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Cli::usage_error(faults.join("; ")).into()
    })
}

/// The command line that reproduces this model.
fn command(args: &ModelArgs) -> String {
    let shape = &args.shape;
    let shape = match &args.from {
        Some(_) => "--from DIR".to_owned(),
        None => format!(
            "--vocab-size {} --hidden-size {} --intermediate-size {} --layers {} --heads {} \
             --kv-heads {}",
            shape.vocab_size,
            shape.hidden_size,
            shape.intermediate_size,
            shape.layers,
            shape.heads,
            shape.kv_heads
        ),
    };
    format!(
        "embodied-r-pretrain model --steps {} --lookup-steps {} --naming-steps {} \
         --chat-steps {} --tokens-per-step {} --learning-rate {} --lookup-learning-rate {} \
         --naming-learning-rate {} --seed {} {shape} --output DIR",
        args.steps,
        args.lookup_steps,
        args.naming_steps,
        args.chat_steps,
        args.tokens_per_step,
        args.learning_rate,
        args.lookup_learning_rate,
        args.naming_learning_rate,
        args.seed,
    )
}
