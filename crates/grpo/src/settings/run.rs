//! Settings of every run.

use std::path::PathBuf;

use embodied_r_data::DataFiles;
use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::{Recompute, ReportTo};
use crate::checkpoint::Milestones;
use crate::data::length_limit::TruncationStrategy;
use crate::model::Precision;

/// Model, data and resources of a run, and its checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSettings {
    /// Model directory, or model ID on the Hugging Face Hub.
    pub model: String,
    /// Training data. GRPO: questions, as `perceive` writes them, or in a [format](guide/data.md#questions-with-images-and-videos) of other
    /// trainers. SFT: conversations, JSONL of `{"messages": [{"role",
    /// "content"}]}`; or such questions, to train on their answers without reasoning. A file, a folder of shards, a glob
    /// pattern, or a list of them.
    pub data: DataFiles,
    /// Evaluation data: questions, answered greedily every `eval_steps`; for SFT conversations, evaluated before the first
    /// step, after every epoch and after the last step. Default: no evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<DataFiles>,
    /// Output directory of the run: checkpoints, events, completions and the final model.
    pub output: PathBuf,
    /// Random seed of sampling, data order, initialization and dropout. Default: 42.
    pub seed: u64,
    /// Questions whose prompts are longer than `max_prompt_length`, or examples longer than `max_length`: `delete` leaves
    /// them out and reports their number, `raise` does not start the run. Default: `delete`.
    pub truncation_strategy: TruncationStrategy,
    /// Maximum tokens per micro-batch, prompts included. Lower it when memory runs out; the gradient does not change,
    /// except with `bnpo`. If a prompt exceeds half of it, each part of the group may hold as many completion tokens as
    /// the prompt; a longer example of SFT is a micro-batch of its own. Default: 2048.
    pub max_tokens_per_batch: usize,
    /// Activation recomputation (gradient checkpointing), and how much of the rollout's activations the update reuses:
    /// `auto` uses the available memory, `all` saves the most memory, `none` is fastest. Results change only by
    /// rounding. Default: `auto`.
    pub recompute: Recompute,
    /// Matmul precision: `f32`, or `bf16` with f32 accumulation. Default: `f32`; on a GPU `bf16`.
    pub precision: Precision,
    /// Number of latest checkpoints to keep, not counting the best one and those of `keep_every_epochs`. Default: 3,
    /// of SFT 1.
    pub save_total_limit: usize,
    /// Interval in epochs of checkpoints that are never deleted, written independently of `save_steps`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_every_epochs: Option<f64>,
    /// Number of consecutive steps skipped because of non-finite values at which the run aborts. Default: 5.
    pub max_skipped_steps: u64,
    /// Metrics loggers besides `events.jsonl`: `tensorboard` (in `runs/`) or `none`. Default: `tensorboard`.
    pub report_to: ReportTo,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            model: String::new(),
            data: DataFiles::default(),
            eval_data: None,
            output: PathBuf::new(),
            seed: 42,
            truncation_strategy: TruncationStrategy::Delete,
            max_tokens_per_batch: 2048,
            recompute: Recompute::Auto,
            precision: Precision::F32,
            save_total_limit: 3,
            keep_every_epochs: None,
            max_skipped_steps: 5,
            report_to: ReportTo::default(),
        }
    }
}

impl RunSettings {
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        faults.at_least("max_tokens_per_batch", self.max_tokens_per_batch as u64, 1);
        faults.at_least("save_total_limit", self.save_total_limit as u64, 1);
        if let Some(epochs) = self.keep_every_epochs {
            faults.positive("keep_every_epochs", epochs);
        }
        faults.at_least("max_skipped_steps", self.max_skipped_steps, 1);
    }

    /// Steps whose checkpoints are kept permanently, given the `steps_per_epoch`.
    pub fn milestones(&self, steps_per_epoch: u64) -> Option<Milestones> {
        self.keep_every_epochs.map(|epochs| Milestones::new(epochs, steps_per_epoch))
    }
}
