//! Datasets and prompts.
//!
//! - The record that every pipeline stage reads and writes: [`question`]; with captions in its text: [`captions`].
//! - Benchmarks: the training benchmarks' tables ([`vsi`], [`urban`], [`parquet`]), their
//!   preprocessing into one dataset split by scene ([`preprocess`], [`split`], [`videos`]), and the
//!   out-of-domain benchmarks ([`egoschema`], [`mvbench`]). [`question_set`] reads all formats,
//!   [`duplicates`] finds questions that occur twice. Several files are read as one: [`data_files`].
//! - Questions with images and videos, in the formats of other trainers: [`multimodal`].
//! - Text: prompts of the model and the judge ([`prompts`]), which system prompt a question gets ([`system_prompt`]), ground-truth captions of built-in rooms
//!   ([`scene`]).
//! - Shared by all stages: progress reporting ([`progress`]), settings that are one value or a list ([`one_or_many`]).
//!
//! ```
//! use embodied_r_data::prompts::{CaptionStyle, FrameText, perceived_prompt, question_part};
//!
//! let frame = |action: Option<&str>, view: &str| FrameText {
//!     action: action.map(str::to_owned),
//!     view: view.to_owned(),
//! };
//! let frames = [frame(None, "lamp left 30, 2 m"), frame(Some("rotate left 30"), "lamp ahead, 2 m")];
//! let prompt = perceived_prompt(&frames, "Question: Where is the lamp?", CaptionStyle::Bearings);
//! assert!(prompt.contains("\nFrame 1: After rotate left 30, Observe: lamp ahead, 2 m\n"));
//! assert_eq!(question_part(&prompt), "Question: Where is the lamp?");
//! ```

pub mod answer;
pub mod benchmark;
pub mod captions;
mod container;
pub mod data_files;
pub mod duplicates;
pub mod egoschema;
pub mod error;
pub mod multimodal;
pub mod mvbench;
pub mod one_or_many;
pub mod parquet;
pub mod preprocess;
pub mod progress;
pub mod prompts;
pub mod question;
mod question_key;
pub mod question_set;
mod record;
mod row;
pub mod scene;
pub mod split;
pub mod system_prompt;
pub mod urban;
mod video_file;
pub mod videos;
pub mod vsi;

pub use benchmark::Benchmark;
pub use data_files::DataFiles;
pub use error::{Error, Result};
pub use progress::Progress;
pub use question::Question;
pub use question_key::QuestionKey;
pub use question_set::{QuestionSet, read_question_set};
pub use record::RecordPlace;
pub use video_file::{VideoFolders, find_video};
