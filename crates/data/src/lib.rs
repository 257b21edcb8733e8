//! Questions and where they come from.
//!
//! The crate at the bottom of the workspace, in four groups:
//! - the record that every stage passes on: [`question`];
//! - the benchmarks: their tables ([`vsi`], [`urban`], [`parquet`]), and the way from them to one set
//!   of questions split by scene ([`preprocess`], [`split`], [`videos`]); the sets that are scored
//!   out of domain ([`egoschema`], [`mvbench`]), which [`question_set`] reads as questions too;
//! - texts: what the model and the judge are given ([`prompts`]), and what is true of a built-in
//!   room in words ([`scene`]);
//! - what all stages need: files that are whole or not there ([`write`](mod@write)), and the trait
//!   by which libraries report progress ([`progress`]).
//!
//! ```
//! use embodied_r_data::prompts::{FrameText, perceived, question_part};
//!
//! let frame = |action: Option<&str>, view: &str| FrameText {
//!     action: action.map(str::to_owned),
//!     view: view.to_owned(),
//! };
//! let frames = [frame(None, "lamp left 30, 2 m"), frame(Some("rotate left 30"), "lamp ahead, 2 m")];
//! let prompt = perceived(&frames, "Question: Where is the lamp?");
//! assert!(prompt.contains("\nFrame 1: After rotate left 30, Observe: lamp ahead, 2 m\n"));
//! assert_eq!(question_part(&prompt), "Question: Where is the lamp?");
//! ```

pub mod benchmark;
pub mod egoschema;
pub mod error;
pub mod mvbench;
pub mod parquet;
pub mod preprocess;
pub mod progress;
pub mod prompts;
pub mod question;
pub mod question_set;
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
pub use question_set::{QuestionSet, read_question_set};
