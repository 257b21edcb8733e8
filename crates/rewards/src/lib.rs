//! Rewards of the trainer: accuracy, format, logical consistency and others, and their staged
//! weights.
//!
//! A [`Reward`] turns a batch of completions into raw, unweighted scores with a reason for every
//! point lost; the trainer weighs them by the [`Stage`] that is active.
//!
//! | module | holds |
//! |---|---|
//! | [`answer`] | what a completion answers: tags, option letters, numbers |
//! | [`accuracy`], [`mod@format`], [`consistency`] | the paper's three rewards |
//! | [`soft_overlong`], [`repetition`], [`cosine`] | punishments and rewards of length |
//! | [`external`] | rewards by a command or a service over HTTP |
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
//!     ..Scored::default()
//! }];
//! assert_eq!(Accuracy.score(&batch)?[0].value, Some(1.0));
//! # Ok::<(), embodied_r_rewards::Error>(())
//! ```

pub mod accuracy;
pub mod answer;
pub mod consistency;
pub mod cosine;
pub mod error;
pub mod external;
pub mod format;
pub mod http_judge;
pub mod judge;
pub mod numeric;
pub mod outputs;
pub mod records;
pub mod registry;
pub mod repetition;
pub mod reward;
pub mod soft_overlong;
pub mod stages;

pub use accuracy::Accuracy;
pub use consistency::Consistency;
pub use cosine::Cosine;
pub use error::{Error, Result};
pub use external::{External, ExternalReward};
pub use format::Format;
pub use http_judge::HttpJudge;
pub use judge::{Judge, JudgePrompt};
pub use registry::Names;
pub use repetition::Repetition;
pub use reward::{Reward, Score, Scored};
pub use soft_overlong::SoftOverlong;
pub use stages::{Schedule, Stage};
