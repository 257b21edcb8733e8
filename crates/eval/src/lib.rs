//! The benchmarks' own protocols and scores.
//!
//! [`predictions::read`] reads what a model answered, [`score`] scores it by a [`Protocol`] into a
//! [`Report`], and [`markdown()`] sets that beside the [`published`] rows. [`blind`] asks for what a
//! question tells without its video.
//!
//! # What counts
//!
//! | case | `embodied-r`, `egoschema`, `mvbench` | `vsi-bench` | `urbanvideo-bench` |
//! |---|---|---|---|
//! | a whole output without a closed `<answer>` tag | wrong | wrong | wrong |
//! | an answer that the protocol's rules cannot read | wrong | wrong | wrong |
//! | no prediction at all (null, or not there) | wrong | wrong | left out, as the official script leaves it out |
//! | a category that is not the protocol's | left out | left out | left out |
//! | a category without questions | not in the macro mean | not in the macro mean | not in the macro mean |
//!
//! All of these are counted in [`report::Notes`]; what is left out counts nowhere else.
//!
//! ```
//! use embodied_r_eval::predictions::{Output, Prediction};
//! use embodied_r_eval::{Protocol, score};
//!
//! let prediction = |category: &str, solution: &str, answer: &str| Prediction {
//!     id: "1".to_owned(),
//!     category: category.to_owned(),
//!     solution: solution.to_owned(),
//!     output: Output::Answer(answer.to_owned()),
//! };
//! let report = score(
//!     Protocol::VsiBench,
//!     &[prediction("route_planning", "B", "b."), prediction("object_counting", "4", "5 chairs")],
//! )?;
//! assert_eq!((report.n, report.overall), (2, 80.0));
//! # Ok::<(), embodied_r_eval::Error>(())
//! ```

pub mod blind;
pub mod error;
pub mod markdown;
pub mod predictions;
pub mod protocol;
pub mod published;
pub mod report;
pub mod scoring;

pub use error::{Error, Result};
pub use markdown::markdown;
pub use predictions::Prediction;
pub use protocol::Protocol;
pub use report::Report;
pub use scoring::score;
