//! Questions and where they come from.
//!
//! The crate at the bottom of the workspace: the record that every stage passes on
//! ([`question::Question`]), the readers of the benchmarks, scene files, prompt templates, and the
//! small trait by which libraries report progress.

pub mod benchmark;
pub mod error;
pub mod parquet;
pub mod preprocess;
pub mod progress;
pub mod prompts;
pub mod question;
pub mod scene;
pub mod split;
pub mod urban;
pub mod videos;
pub mod vsi;
pub mod write;

pub use benchmark::Benchmark;
pub use error::{Error, Result};
pub use progress::Progress;
pub use question::Question;
