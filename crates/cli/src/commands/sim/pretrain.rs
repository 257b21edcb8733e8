//! `embodied-r sim pretrain`.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use embodied_r_data::write::write_atomic;
use embodied_r_data::{Progress, prompts};
use embodied_r_grpo::events::{Event, Sink};
use embodied_r_grpo::lm;
use embodied_r_grpo::optimizer::AdamwSettings;
use embodied_r_grpo::schedule::{LrScheduler, Schedule};
use embodied_r_policy::tokenizer::{Tokenizer, TrainOptions, train};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{ModelConfig, Policy, WeightDtype};
use embodied_r_sim::{Category, corpus, text_question};
use serde_json::json;

use crate::args::sim::PretrainArgs;
use crate::exit::Status;
use crate::progress::Bar;

/// Documents, questions and judge's examples that the tokenizer is trained on.
const TOKENIZER_TEXTS: u64 = 3000;

/// Steps over which the learning rate rises.
const WARMUP_STEPS: u64 = 100;

/// Longest sequence of the model: the quickstart's prompts with their completions fit twice.
const MAX_POSITIONS: usize = 2048;

/// The token between documents.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Train the small base model that the quickstart begins with.
pub(super) fn run(args: PretrainArgs) -> anyhow::Result<Status> {
    std::fs::create_dir_all(&args.out)
        .map_err(embodied_r_data::Error::io("create", args.out.as_path()))?;
    let began = Instant::now();
    let options = TrainOptions { vocab_size: args.shape.vocab_size, min_frequency: 2 };
    let trained = train(tokenizer_texts(args.seed), &options, &args.out)?;
    let tokenizer = Tokenizer::from_dir(&args.out)?;
    let config = config(&args, trained.vocab_size)?;
    let policy = Policy::random(&config, args.seed)?;
    println!("{:.2} M parameters", config.parameter_count() as f64 / 1e6);
    let settings = lm::Settings {
        tokens_per_step: args.tokens_per_step,
        max_tokens_per_batch: args.tokens_per_step + MAX_POSITIONS,
        schedule: Schedule {
            kind: LrScheduler::Cosine,
            peak: args.learning_rate,
            warmup_steps: WARMUP_STEPS.min(args.steps),
            total_steps: args.steps,
        },
        adamw: AdamwSettings {
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.05,
            max_grad_norm: 1.0,
        },
    };
    let documents = (0..).map_while(|index| {
        let text = format!("{END_OF_TEXT}{}", corpus::document(args.seed, index));
        tokenizer.encode(&text).ok()
    });
    let bar = Bar::default();
    let mut shown = Shown { bar: &bar };
    let stop = AtomicBool::new(false);
    let outcome = lm::train(&policy, documents, &settings, &mut [&mut shown], &stop)?;
    bar.finish();
    policy.save(&args.out, &SaveOptions { dtype: WeightDtype::Bf16, ..SaveOptions::default() })?;
    let record = json!({
        "command": command(&args),
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "loss": outcome.loss,
        "parameters": config.parameter_count(),
        "seconds": began.elapsed().as_secs(),
        "threads": rayon::current_num_threads(),
    });
    write_json(&args.out.join("pretrain.json"), &record)?;
    println!("loss {:.4} after {} tokens, in {}", outcome.loss, outcome.tokens, args.out.display());
    Ok(Status::Done)
}

/// Text with every word that the quickstart's prompts and completions have.
fn tokenizer_texts(seed: u64) -> impl Iterator<Item = String> + Send {
    let documents = (0..TOKENIZER_TEXTS).map(move |i| corpus::document(seed, i));
    let questions = (0..TOKENIZER_TEXTS).filter_map(move |i| {
        let found = text_question(seed, i, &Category::ALL)?;
        let (prompt, reply) = (found.perceived().question, found.rationale.completion());
        Some(format!("{}\n{prompt}\n{reply}", prompts::system_prompt()))
    });
    let judged = (0..TOKENIZER_TEXTS / 10).filter_map(move |i| {
        let example = corpus::judge_example(seed, i, &Category::ALL)?;
        Some(format!("{}\n{}\n{}", example.system, example.user, example.letter))
    });
    documents.chain(questions).chain(judged)
}

fn config(args: &PretrainArgs, vocab_size: usize) -> anyhow::Result<ModelConfig> {
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
        "rope_theta": 10_000.0,
        "tie_word_embeddings": true,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": 0.04,
    });
    ModelConfig::from_json(&config).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        crate::exit::Usage(faults.join("; ")).into()
    })
}

/// The command line that makes this model again.
fn command(args: &PretrainArgs) -> String {
    let PretrainArgs { steps, tokens_per_step, learning_rate, seed, shape, .. } = args;
    format!(
        "embodied-r sim pretrain --steps {steps} --tokens-per-step {tokens_per_step} \
         --learning-rate {learning_rate} --seed {seed} --vocab-size {} --hidden-size {} \
         --intermediate-size {} --layers {} --heads {} --kv-heads {} --out DIR",
        shape.vocab_size,
        shape.hidden_size,
        shape.intermediate_size,
        shape.layers,
        shape.heads,
        shape.kv_heads
    )
}

fn write_json(path: &Path, value: &serde_json::Value) -> anyhow::Result<()> {
    Ok(write_atomic(path, &serde_json::to_vec_pretty(value)?)?)
}

/// Shows the training's events on the progress bar.
struct Shown<'a> {
    bar: &'a Bar,
}

impl Sink for Shown<'_> {
    fn event(&mut self, event: &Event) -> embodied_r_grpo::Result<()> {
        match event {
            Event::Start { steps, .. } => self.bar.start("pre-training", Some(*steps)),
            Event::Step { metrics, .. } => {
                self.bar.advance(1);
                let of = |name: &str| metrics.get(name).copied().unwrap_or(f64::NAN);
                let (loss, rate) = (of("loss"), of("tokens_per_second"));
                self.bar.message(&format!("loss {loss:.4}, {rate:.0} tokens/s"));
            }
            _ => {}
        }
        Ok(())
    }
}
