//! Group relative policy optimisation and supervised fine-tuning.
//!
//! A [`trainer::Trainer`] samples a group of completions for each question, scores them, and moves
//! the policy towards those that are better than their group; [`sft::Trainer`] learns given
//! replies, and [`lm::train`] whole documents. All three take their optimiser steps through
//! [`update`], write checkpoints through [`checkpoint`] and tell of themselves through [`events`].
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | what a run is told, under TRL's names |
//! | [`questions`], [`conversations`] | what there is to learn from |
//! | [`plan`], [`schedule`], [`sampler`], [`random`] | which step does what; functions of the step alone |
//! | [`rollout`], [`scoring`], [`judge`], [`advantages`] | completions and what they are worth |
//! | [`loss`], [`inspect`], [`batch_file`] | the losses and their derivatives; one of them by itself |
//! | [`batches`], [`micro_batch`], [`update`], [`optimizer`] | from micro-batches to a step |
//! | [`verify`], [`memory_plan`], [`process`] | packed gradients beside plain ones; memory, before it is taken and after |
//! | [`roofline`] | time, before it is taken, on devices that need not be there; what fits them |
//! | [`skipped`] | steps that are left out because something is not finite |
//! | [`model`] | what all of it needs of a model |
//! | [`team`] | the ranks that train together |
//!
//! A step's randomness, questions, stage and learning rate follow from its number and from where the
//! stages began, so that a resumed run is the run that never stopped.
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
pub mod batches;
pub mod checkpoint;
pub mod conversations;
pub mod error;
pub mod events;
mod fingerprint;
pub mod inspect;
pub mod judge;
pub mod lm;
pub mod loss;
pub mod memory_plan;
pub mod micro_batch;
pub mod model;
pub mod optimizer;
pub mod plan;
pub mod process;
pub mod questions;
pub mod random;
pub mod rollout;
pub mod roofline;
pub mod sampler;
pub mod schedule;
pub mod scoring;
pub mod settings;
pub mod sft;
pub mod skipped;
pub mod supervised;
pub mod team;
pub mod trainer;
pub mod update;
pub mod verify;

pub use error::{Error, Result};
