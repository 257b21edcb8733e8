//! Resolved settings of a run, under TRL's names, and their validation.
//!
//! Settings come in groups, which GRPO and SFT share as TRL's configs share a base; files write all groups side by side.
//! The types know neither files nor flags; the command line resolves those into them.

mod advantages;
mod evaluation;
mod faults;
mod flat;
mod grpo;
mod inspect;
mod judge;
mod loss;
mod lr;
mod media;
mod optimizer;
mod prompt;
mod recompute;
mod reference;
mod report_to;
mod rewards;
mod rollout;
mod run;
mod sft;
mod stages;
mod string_list;
mod supervised;
mod trainable;
mod vision;

pub use advantages::AdvantageSettings;
pub use evaluation::EvaluationSettings;
pub use faults::Fault;
pub(crate) use faults::MAX_STEPS;
pub use flat::names;
pub use grpo::GrpoSettings;
pub use inspect::InspectSettings;
pub use judge::{JudgeKind, JudgeSettings};
pub use loss::LossSettings;
pub use lr::LrSettings;
pub use media::{FrameUse, MediaSettings};
pub use optimizer::{Optim, OptimizerSettings};
pub use prompt::PromptSettings;
pub use recompute::Recompute;
pub use reference::ReferenceSettings;
pub use report_to::ReportTo;
pub use rewards::RewardSettings;
pub use rollout::RolloutSettings;
pub use run::RunSettings;
pub use sft::SftSettings;
pub use stages::StageSettings;
pub use string_list::StringList;
pub use supervised::SupervisedSettings;
pub use trainable::{ALL_LINEAR, TrainableSettings};
pub use vision::VisionSettings;
