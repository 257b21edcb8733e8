//! Evaluation by the benchmarks' official protocols.
//!
//! [`predictions::read`] reads a model's predictions, [`score`] scores them by a [`Protocol`] into a
//! [`Report`], and [`markdown()`] compares it with [`published`] results. [`blind`] supports the
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
//! use embodied_r_eval::{Protocol, score};
//!
//! let prediction = |category: &str, solution: &str, answer: &str| Prediction {
//!     id: "1".to_owned(),
//!     video: None,
//!     category: category.to_owned(),
//!     solution: solution.to_owned(),
//!     answer_type: None,
//!     output: PredictionOutput::Answer(answer.to_owned()),
//! };
//! let report = score(
//!     Protocol::VsiBench,
//!     &[prediction("route_planning", "B", "b."), prediction("object_counting", "4", "5 chairs")],
//! )?;
//! assert_eq!((report.n, report.overall), (2, 80.0));
//! # Ok::<(), embodied_r_eval::Error>(())
//! ```

pub mod blind;
mod category;
pub mod error;
pub mod folds;
pub mod markdown;
pub mod matching;
pub mod pass_at;
pub mod predictions;
pub mod protocol;
pub mod published;
pub mod report;
pub mod samples;
pub mod scoring;

pub use error::{Error, Result};
pub use folds::FoldedReport;
pub use markdown::{folded_markdown, markdown};
pub use matching::{Answered, Asked, Matched, match_questions};
pub use pass_at::{pass_at, score_samples};
pub use predictions::Prediction;
pub use protocol::Protocol;
pub use report::Report;
pub use samples::SampledQuestion;
pub use scoring::score;
