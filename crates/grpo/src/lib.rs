//! Group relative policy optimization and supervised fine-tuning.
//!
//! A [`GrpoTrainer`](trainer::grpo::GrpoTrainer) samples a group of completions for each question, scores them and
//! increases the probability of those with above-average rewards. [`SftTrainer`](trainer::sft::SftTrainer) fine-tunes on
//! conversations.
//!
//! The modules in the order of a step:
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | settings of a run, under TRL's names |
//! | [`data`] | questions, conversations, length limits, and the order of the data |
//! | [`images`] | the images and videos of prompts, and their embeddings |
//! | [`schedule`] | learning rate, stages; pure functions of the step |
//! | [`rollout`] | completions, and how they are shared among the ranks |
//! | [`rewards`] | scores, and the judge in process |
//! | [`advantages`] | what makes a completion better than its group |
//! | [`loss`] | losses and their derivatives by the log-probabilities |
//! | [`update`] | packing, gradient accumulation, the optimizer, packing verification |
//! | [`checkpoint`] | checkpoints, the lock of a run's folder, models that are not finite |
//! | [`events`] | the run's record: events, metrics, completions, skipped steps |
//! | [`trainer`] | the training loop, and what GRPO and SFT compute in it |
//! | [`estimate`] | memory and step time, for any device |
//! | [`inspect`] | the loss of a given batch |
//! | [`model`] | the model and tokenizer traits |
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
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod estimate;
pub mod events;
pub mod images;
pub mod inspect;
pub mod loss;
pub mod model;
pub mod non_finite;
pub mod rewards;
pub mod rollout;
pub mod schedule;
pub mod settings;
pub mod trainer;
pub mod update;

pub use error::{Error, Result};
