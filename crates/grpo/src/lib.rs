//! Group relative policy optimization and supervised fine-tuning.
//!
//! A [`trainer::GrpoTrainer`] samples a group of completions for each question, scores them and increases the
//! probability of those with above-average rewards. [`sft::SftTrainer`] fine-tunes on conversations, [`lm::train`] on
//! plain documents. All three take optimizer steps through [`update`], write checkpoints through [`checkpoint`] and
//! report through [`events`].
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | settings of a run, under TRL's names |
//! | [`questions`], [`conversations`], [`length_limit`] | training data |
//! | [`training_plan`], [`schedule`], [`sampler`], [`random`] | schedules and data order; pure functions of the step |
//! | [`rollout`], [`scoring`], [`judge`], [`advantages`] | completions, rewards and advantages |
//! | [`loss`], [`inspect`], [`batch_file`] | losses and gradients; the loss of a given batch |
//! | [`packing`], [`micro_batch`], [`update`], [`optimizer`] | packing, gradient accumulation, optimizer step |
//! | [`verify`], [`memory_plan`], [`peak_memory`] | packing verification; memory estimate and measured peak |
//! | [`roofline`] | step time and memory fit, estimated for any device |
//! | [`non_finite`] | what was not finite in a step or a model |
//! | [`model`] | the model and tokenizer traits |
//! | [`process_group`], [`partition`] | the ranks that train together, and how a step is partitioned over them |
//!
//! A step's random numbers, questions, stage and learning rate depend only on its number and on where the stages began.
//! A resumed run is therefore identical to an uninterrupted one.
//!
//! ```
//! use embodied_r_grpo::advantages::{ScaleRewards, advantages};
//!
//! let rewards = [Some(1.0), Some(0.0), Some(0.0), Some(1.0)];
//! let found = advantages(&rewards, 4, ScaleRewards::Group);
//! assert!((found.values[0] - 0.8659).abs() < 1e-4);
//! ```

pub mod advantages;
pub mod batch_file;
pub mod checkpoint;
pub mod conversations;
pub mod error;
pub mod events;
mod expected_lengths;
mod fingerprint;
mod finite;
pub mod inspect;
pub mod judge;
pub mod length_limit;
pub mod lm;
pub mod loss;
pub mod memory_plan;
pub mod micro_batch;
pub mod model;
pub mod non_finite;
pub mod optimizer;
pub mod packing;
pub mod packing_check;
pub mod partition;
pub mod peak_memory;
pub mod process_group;
pub mod questions;
pub mod random;
pub mod rollout;
pub mod roofline;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod scoring;
pub mod settings;
pub mod sft;
mod skipped;
pub mod supervised;
mod too_long;
pub mod trainer;
pub mod training_plan;
pub mod update;
pub mod verify;

pub use error::{Error, Result};
