//! Rewards of the trainer: accuracy, format, logical consistency, and their staged weights.
//!
//! A [`Reward`] turns a batch of completions into raw, unweighted scores from 0 to 1 with a reason
//! for every point lost; the trainer weighs them by the [`Stage`] that is active.
//!
//! | module | holds |
//! |---|---|
//! | [`answer`] | what a completion answers: tags, option letters, numbers |
//! | [`accuracy`], [`mod@format`], [`consistency`] | the three rewards |
//! | [`judge`], [`http_judge`] | who reads the reasoning for `consistency` |
//! | [`numeric`] | mean relative accuracy of numeric answers |
//! | [`registry`] | rewards by name |
//! | [`stages`] | weights that change in the course of training |
//! | [`outputs`], [`records`] | saved outputs, read back and scored |
//!
//! ```
//! use embodied_r_rewards::{Accuracy, Reward, Scored};
//!
//! let batch = [Scored {
//!     question: "Question: Where is the lamp?\n\nChoices:\nA. Left\nB. Right",
//!     solution: "B",
//!     completion: "<think>It is to the right.</think><answer>B. Right</answer>",
//! }];
//! assert_eq!(Accuracy.score(&batch)?[0].value, Some(1.0));
//! # Ok::<(), embodied_r_rewards::Error>(())
//! ```

pub mod accuracy;
pub mod answer;
pub mod consistency;
pub mod error;
pub mod format;
pub mod http_judge;
pub mod judge;
pub mod numeric;
pub mod outputs;
pub mod records;
pub mod registry;
pub mod reward;
pub mod stages;

pub use accuracy::Accuracy;
pub use consistency::Consistency;
pub use error::{Error, Result};
pub use format::Format;
pub use http_judge::HttpJudge;
pub use judge::{Judge, JudgePrompt};
pub use reward::{Reward, Score, Scored};
pub use stages::{Schedule, Stage};
