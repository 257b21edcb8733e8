//! Reward functions of the trainer (accuracy, format, logical consistency and others) and their
//! per-stage weights.
//!
//! A [`Reward`] maps a batch of completions to raw, unweighted scores and gives a reason for every
//! point lost. The trainer weights them by the active [`Stage`].
//!
//! | module | contents |
//! |---|---|
//! | [`answer`] | answer extraction: tags, option letters, numbers, positions |
//! | [`accuracy`], [`mod@format`], [`consistency`] | the paper's three rewards |
//! | [`soft_overlong`], [`repetition`], [`cosine`] | length and repetition penalties, cosine length reward |
//! | [`answer_type`], [`text_match`], [`rouge`] | answers that are texts, and numbers by relative error |
//! | [`embodied_r15`] | Embodied-R1.5's rewards, for its records |
//! | [`pointing`] | points, boxes and traces in an image |
//! | [`waypoint_distance`] | distance of a position to the reference position |
//! | [`external`] | custom rewards: a command or an HTTP service |
//! | [`judge`], [`http_judge`] | the judge model of `consistency` |
//! | [`service`] | how judges and rewards behind a URL are called |
//! | [`numeric`] | mean relative accuracy of numeric answers |
//! | [`registry`] | reward lookup by name |
//! | [`stages`] | reward weights per training stage |
//! | [`prompt_end`] | replies whose `<think>` is in the prompt |
//! | [`outputs`], [`records`] | reading and scoring saved outputs |
//!
//! ```
//! use embodied_r_rewards::{Accuracy, Reward, RewardInput};
//!
//! let batch = [RewardInput {
//!     question: "Question: Where is the lamp?\n\nChoices:\nA. Left\nB. Right",
//!     solution: "B",
//!     completion: "<think>It is to the right.</think><answer>B. Right</answer>",
//!     ..RewardInput::default()
//! }];
//! assert_eq!(Accuracy::default().score(&batch)?[0].value, Some(1.0));
//! # Ok::<(), embodied_r_rewards::Error>(())
//! ```

pub mod accuracy;
pub mod answer;
pub mod answer_type;
pub mod consistency;
pub mod cosine;
pub mod embodied_r15;
pub mod error;
pub mod external;
pub mod format;
pub mod http_judge;
pub mod judge;
mod names;
pub mod numeric;
pub mod outputs;
pub mod pointing;
pub mod prompt_end;
pub mod records;
pub mod registry;
pub mod repetition;
pub mod reward;
pub mod rouge;
mod score;
pub mod service;
pub mod soft_overlong;
mod solution;
pub mod stages;
pub mod text_match;
mod validation;
pub mod waypoint_distance;

pub use accuracy::Accuracy;
pub use answer_type::AnswerType;
pub use consistency::Consistency;
pub use cosine::Cosine;
pub use embodied_r_openai::check_base_url;
pub use embodied_r15::EmbodiedR15;
pub use error::{Error, Result};
pub use external::{External, ExternalRewardConfig};
pub use format::Format;
pub use http_judge::HttpJudge;
pub use judge::{Judge, JudgePrompt};
pub use names::{BUILT_IN_REWARDS, RewardNames};
pub use repetition::Repetition;
pub use reward::{Reward, RewardInput, Score};
pub use soft_overlong::SoftOverlong;
pub use stages::{RewardSchedule, Stage};
pub use validation::ValidationErrors;
pub use waypoint_distance::WaypointDistance;
