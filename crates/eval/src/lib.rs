//! Evaluation by the benchmarks' official protocols.
//!
//! [`predictions::read`] reads a model's predictions, [`score`] scores them by a [`Protocol`], one of
//! the [`benchmarks`] with its scorer, into a
//! [`Report`], and [`markdown()`] compares it with [`published`]
//! results. [`blind`] supports the
//! blind baseline, which answers without the video. [`samples`] are several completions per question,
//! which [`score_samples`] scores by [`pass_at()`]. A [`FoldedReport`] averages over the folds of a cross-validation.
//!
//! # What counts
//!
//! | case | `embodied-r`, `egoschema`, `mvbench`, `robot-r1`, `accuracy` | `vsi-bench` | `urbanvideo-bench` |
//! |---|---|---|---|
//! | a completion without a closed `<answer>` tag | wrong | wrong | wrong |
//! | an answer that the protocol cannot parse | wrong | wrong | wrong |
//! | a record without a prediction (null or absent) | wrong | wrong | skipped, as in the official script |
//! | a question that the model or the file left out | wrong | wrong | wrong |
//! | a category outside the protocol (`accuracy` has all) | skipped | skipped | skipped |
//! | a category without questions | not in the macro mean | not in the macro mean | not in the macro mean |
//!
//! A question in two records is an error. [`match_questions`] adds the questions of a question set of which there is no
//! record. [`report::Coverage`] counts all of these; skipped questions count nowhere else.
//!
//! ```
//! use embodied_r_eval::predictions::{Prediction, PredictionOutput};
//! use embodied_r_eval::{Protocol, benchmarks, score};
//!
//! let prediction = |category: &str, solution: &str, answer: &str| Prediction {
//!     id: "1".to_owned(),
//!     category: category.to_owned(),
//!     solution: solution.to_owned(),
//!     output: PredictionOutput::Answer(answer.to_owned()),
//!     ..Prediction::default()
//! };
//! let vsi_bench = Protocol::from(benchmarks::find("vsi-bench").ok_or("no such benchmark")?);
//! let report = score(
//!     vsi_bench,
//!     &[prediction("route_planning", "B", "b."), prediction("object_counting", "4", "5 chairs")],
//! )?;
//! assert_eq!((report.n, report.overall), (2, 80.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod benchmark;
pub mod benchmarks;
pub mod blind;
mod category;
pub mod error;
mod extract;
pub mod folds;
mod fuzzy;
pub mod layout;
pub mod markdown;
pub mod matching;
mod option_line;
pub mod own_prompt;
pub mod pass_at;
mod pointing;
pub mod predictions;
pub mod protocol;
pub mod published;
pub mod report;
pub mod samples;
pub mod scoring;

pub use benchmark::Benchmark;
pub use error::{Error, Result};
pub use folds::FoldedReport;
pub use markdown::{folded_markdown, markdown, scorers_markdown};
pub use matching::{Answered, Asked, Matched, match_questions};
pub use pass_at::{pass_at, score_samples};
pub use predictions::Prediction;
pub use protocol::Protocol;
pub use report::Report;
pub use samples::SampledQuestion;
pub use scoring::score;
