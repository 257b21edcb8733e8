//! Arguments of `embodied-r sim`.

use std::path::PathBuf;

use clap::Subcommand;
use embodied_r_sim::Category;

/// Make rooms, videos, questions and text to train on.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    pub(crate) command: SimCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    /// Film rooms and lay videos and questions out as the two benchmarks do.
    Rooms(RoomsArgs),
    /// Write text to pre-train a small model on, as JSON lines of `prompt` and `completion`.
    Corpus(CorpusArgs),
    /// Train the small base model that the quickstart begins with.
    Pretrain(PretrainArgs),
    /// Write conversations for a cold start: questions with reasoning, and the judge's task.
    Conversations(ConversationsArgs),
}

/// Film rooms and lay videos and questions out as the two benchmarks do.
///
/// Writes `VSI-Bench/` and `UrbanVideo-Bench/`, which `preprocess` reads, and `scenes/`, the truth
/// that `perceive --backend scene` tells. A run that was cut short goes on where it was.
#[derive(Debug, clap::Args)]
pub(crate) struct RoomsArgs {
    /// Folder to write into.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How many rooms to make; each belongs to one of the benchmarks.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) rooms: u64,
    /// Seed of rooms and questions; the same seed gives the same rooms.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Questions of each category about a room.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) per_category: usize,
    /// Categories to ask in, by their official names, with commas between them; all by default.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) categories: Vec<Category>,
}

/// Write text to pre-train a small model on, as JSON lines of `prompt` and `completion`.
///
/// A document holds a room's captions and true statements about them, and none of the benchmarks'
/// questions.
#[derive(Debug, clap::Args)]
pub(crate) struct CorpusArgs {
    /// How many documents to write.
    #[arg(long, value_name = "N")]
    pub(crate) documents: u64,
    /// Seed of the text; the same seed gives the same text.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// File to write; standard output by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Train the small base model that the quickstart begins with.
///
/// Trains a tokenizer and a Qwen2 decoder, first on lookups, at last on the text of `sim corpus`,
/// and writes both in Hugging Face's layout, with the settings and the time taken in
/// `pretrain.json`.
#[derive(Debug, clap::Args)]
pub(crate) struct PretrainArgs {
    /// Folder to write the model into.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Model to go on from, with its tokenizer, in place of random weights; take another seed than
    /// it had, or it sees the same text again.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// Steps of the optimiser.
    #[arg(long, value_name = "N", default_value_t = 12_000)]
    pub(crate) steps: u64,
    /// How many of them, at the beginning, learn to look things up by name in plain lists and
    /// nothing else; all of them in a run of fewer steps.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) lookup_steps: u64,
    /// How many of the others, at the end, learn to reason about what a prompt names.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) naming_steps: u64,
    /// Tokens of a step.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) tokens_per_step: usize,
    /// Peak learning rate; it rises over the first steps and then falls along a cosine.
    #[arg(long, value_name = "LR", default_value_t = 3e-3)]
    pub(crate) learning_rate: f64,
    /// The same for the lookup steps, which have a rise and a fall of their own.
    #[arg(long, value_name = "LR", default_value_t = 5e-3)]
    pub(crate) lookup_learning_rate: f64,
    /// The same for the naming steps.
    #[arg(long, value_name = "LR", default_value_t = 2e-3)]
    pub(crate) naming_learning_rate: f64,
    /// Seed of weights and text.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}

/// The decoder's shape.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Shape")]
pub(crate) struct ShapeArgs {
    /// Entries of the tokenizer, at most.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 768)]
    pub(crate) vocab_size: usize,
    /// Width of the residual stream.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 128)]
    pub(crate) hidden_size: usize,
    /// Width of the feed-forward layers.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 352)]
    pub(crate) intermediate_size: usize,
    /// Layers.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 6)]
    pub(crate) layers: usize,
    /// Query heads.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 4)]
    pub(crate) heads: usize,
    /// Key and value heads.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 4)]
    pub(crate) kv_heads: usize,
}

/// Write conversations for a cold start: questions with reasoning, and the judge's task.
///
/// The questions are taken from perceived data; a rationale is made from the captions alone, and
/// kept only if it ends at the right answer. The judge's examples are about other rooms.
#[derive(Debug, clap::Args)]
pub(crate) struct ConversationsArgs {
    /// Perceived questions, as `perceive` writes them.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// File to write: JSONL of `messages`, as `sft` reads it.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Questions to write at most, drawn over all of the file.
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) questions: usize,
    /// Share of the questions whose answer is given at once, without its grounds: reasoning as it
    /// is before reinforcement has shown what pays.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) at_once: f64,
    /// Examples of the judge's task to write.
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) judge_examples: usize,
    /// Seed of the choice of questions, and of the judge's examples.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// System prompt of the questions; by default the one the trainer uses.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system_prompt: Option<String>,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err(format!("{share} is not between 0 and 1")),
    }
}
