//! Settings of supervised fine-tuning.

use std::path::{Path, PathBuf};

use candle_core::Device;
use embodied_r_policy::Trainable;
use serde::{Deserialize, Serialize};

use super::trainable::{ALL_LINEAR, Asked, LORA_ALPHA, LORA_DROPOUT, LORA_R, Texts};
use super::{Fault, Faults, Recompute, ReportTo};
use crate::model::{Loading, Precision};
use crate::optimizer::{Optim, OptimizerSettings};
use crate::schedule::LrScheduler;

/// Settings of a supervised run. The optimiser's defaults are those of [`super::Train`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// Folder of the model, or its name on the hub.
    pub model: String,
    /// Conversations to learn, JSONL of `{"messages": [{"role", "content"}]}`.
    pub data: PathBuf,
    /// Conversations to validate on after every epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<PathBuf>,
    /// Folder of the run.
    pub output: PathBuf,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Passes over the conversations.
    pub num_train_epochs: u64,
    /// Replies of each step.
    pub train_batch_size: usize,
    /// Tokens of a conversation; one with more is left out, and counted.
    pub max_length: usize,
    /// Tokens of a micro-batch, prompts included; a longer conversation goes through by itself.
    pub max_tokens_per_batch: usize,
    /// Which layers the backward computes again: it changes time and memory, and no result.
    pub recompute: Recompute,
    /// What products with weights are made of: `f32`, or `bf16` with sums in f32.
    pub precision: Precision,
    /// Trains a low-rank adapter beside the model, which stays as it is.
    pub use_peft: bool,
    /// Rank of the adapter.
    pub lora_r: usize,
    /// What the adapter's part is multiplied with, times `lora_r`.
    pub lora_alpha: usize,
    /// Probability with which an input of the adapter is dropped in training.
    pub lora_dropout: f64,
    /// The modules that are adapted, such as `q_proj`, or `all-linear`.
    pub lora_target_modules: Texts,
    /// Divides the adapter's part by the root of `lora_r` in place of `lora_r`.
    pub use_rslora: bool,
    /// Patterns of tensors that are not trained: those in whose names one of them is found.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub freeze_parameters_regex: Texts,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub lr_scheduler_type: LrScheduler,
    /// Share of the steps in which it rises.
    pub warmup_ratio: f64,
    /// Steps in which it rises, in place of the share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// The rule that moves the weights: `adamw`, or `muon` for the matrices between embedding and
    /// head.
    pub optim: Optim,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Added to the root of the second moment.
    pub adam_epsilon: f64,
    /// Decoupled weight decay of matrices; norms and biases have none.
    pub weight_decay: f64,
    /// Norm to which gradients are clipped.
    pub max_grad_norm: f64,
    /// Steps between checkpoints; without it one after every epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_steps: Option<u64>,
    /// Checkpoints to keep; the best one comes on top, and those of `keep_every_epochs`.
    pub save_total_limit: usize,
    /// Epochs between checkpoints that are written whatever `save_steps` says, and never removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_every_epochs: Option<f64>,
    /// Steps in a row that are left out, since something in them is not finite, before the run gives
    /// up.
    pub max_skipped_steps: u64,
    /// Who is told of the figures beside `events.jsonl`: `tensorboard` (in `runs/`) or `none`.
    pub report_to: ReportTo,
}

impl Default for Sft {
    fn default() -> Self {
        Self {
            model: String::new(),
            data: PathBuf::new(),
            eval_data: None,
            output: PathBuf::new(),
            seed: 42,
            num_train_epochs: 3,
            train_batch_size: 16,
            max_length: 8192,
            max_tokens_per_batch: 2048,
            recompute: Recompute::Auto,
            precision: Precision::F32,
            use_peft: false,
            lora_r: LORA_R,
            lora_alpha: LORA_ALPHA,
            lora_dropout: LORA_DROPOUT,
            lora_target_modules: ALL_LINEAR.into(),
            use_rslora: false,
            freeze_parameters_regex: Texts::default(),
            learning_rate: 1e-5,
            lr_scheduler_type: LrScheduler::Cosine,
            warmup_ratio: 0.05,
            warmup_steps: None,
            optim: Optim::Adamw,
            adam_beta1: 0.9,
            adam_beta2: 0.95,
            adam_epsilon: 1e-8,
            weight_decay: 0.1,
            max_grad_norm: 1.0,
            save_steps: None,
            save_total_limit: 1,
            keep_every_epochs: None,
            max_skipped_steps: 5,
            report_to: ReportTo::default(),
        }
    }
}

impl Sft {
    /// All faults that the types leave possible, at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        faults.at_least("num_train_epochs", self.num_train_epochs, 1);
        faults.at_least("train_batch_size", self.train_batch_size as u64, 1);
        faults.at_least("max_length", self.max_length as u64, 2);
        faults.at_least("max_tokens_per_batch", self.max_tokens_per_batch as u64, 1);
        faults.positive("learning_rate", self.learning_rate);
        faults.share("warmup_ratio", self.warmup_ratio);
        self.durability_faults(&mut faults);
        self.optimizer().faults(&mut faults);
        self.asked().faults(&mut faults);
        faults.0
    }

    /// What of the model is trained.
    pub fn trainable(&self) -> Trainable {
        self.asked().trainable()
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            model: &self.model,
            use_peft: self.use_peft,
            lora_r: self.lora_r,
            lora_alpha: self.lora_alpha,
            lora_dropout: self.lora_dropout,
            lora_target_modules: &self.lora_target_modules,
            use_rslora: self.use_rslora,
            freeze_parameters_regex: &self.freeze_parameters_regex,
        }
    }

    /// How the run's models are read, to compute on the CPU, where `base` is the folder of the one that it begins with.
    pub fn loading<'a>(&'a self, base: &'a Path, activation_bytes: usize) -> Loading<'a> {
        Loading {
            base,
            precision: self.precision,
            activation_bytes,
            trainable: self.trainable(),
            seed: self.seed,
            device: Device::Cpu,
        }
    }

    /// The optimiser's numbers.
    pub fn optimizer(&self) -> OptimizerSettings {
        OptimizerSettings {
            optim: self.optim,
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            epsilon: self.adam_epsilon,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_fault() {
        assert_eq!(Sft::default().faults(), []);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let sft = Sft { num_train_epochs: 0, learning_rate: f64::NAN, ..Sft::default() };
        let keys: Vec<_> = sft.faults().into_iter().map(|fault| fault.key).collect();
        assert_eq!(keys, ["num_train_epochs", "learning_rate"]);
    }
}
