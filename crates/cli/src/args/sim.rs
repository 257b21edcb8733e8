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
    /// Write text to pre-train a small model on, as JSON lines of `text`.
    Corpus(CorpusArgs),
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

/// Write text to pre-train a small model on, as JSON lines of `text`.
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
