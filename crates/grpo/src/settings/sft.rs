//! Settings of supervised fine-tuning.

use std::path::{Path, PathBuf};

use candle_core::Device;
use embodied_r_policy::Trainable;
use serde::{Deserialize, Serialize};

use super::trainable::{
    ALL_LINEAR, LORA_ALPHA, LORA_DROPOUT, LORA_R, StringList, TrainableSettings,
};
use super::{Fault, Faults, MAX_STEPS, Recompute, ReportTo};
use crate::data::length_limit::{LengthLimit, TruncationStrategy};
use crate::model::{LoadOptions, Precision};
use crate::schedule::LrScheduler;
use crate::update::optimizer::{Optim, OptimizerSettings};

/// Settings of a supervised run. The optimizer's defaults are those of [`super::GrpoSettings`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftSettings {
    /// Model directory, or model ID on the Hugging Face Hub.
    pub model: String,
    /// Training data: conversations, JSONL of `{"messages": [{"role", "content"}]}`; or questions, JSON as `perceive`
    /// writes it, to train on their answers without reasoning.
    pub data: PathBuf,
    /// Validation conversations, evaluated after every epoch. Default: no validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<PathBuf>,
    /// Output directory of the run: checkpoints, events and the final model.
    pub output: PathBuf,
    /// Random seed of data order, initialization and dropout. Default: 42.
    pub seed: u64,
    /// Number of training epochs. Default: 3.
    pub num_train_epochs: u64,
    /// Global batch size: assistant messages per optimizer step, over all ranks. Default: 16.
    pub train_batch_size: usize,
    /// Maximum sequence length in tokens, prompt included; never more than the model's context. Default: 8192.
    pub max_length: usize,
    /// Examples that are longer: `delete` leaves them out and reports their number, `raise` does not start the run.
    /// Default: `delete`.
    pub truncation_strategy: TruncationStrategy,
    /// Maximum tokens per micro-batch, prompts included; a longer example forms a micro-batch of its own. Affects
    /// memory and speed, not the gradient. Lower it when memory runs out. Default: 2048.
    pub max_tokens_per_batch: usize,
    /// Activation recomputation (gradient checkpointing): `auto` recomputes what does not fit in memory, `all` saves
    /// the most memory, `none` is fastest. Results do not change. Default: `auto`.
    pub recompute: Recompute,
    /// Matmul precision: `f32`, or `bf16` with f32 accumulation. Default: `f32`; on a GPU `bf16`.
    pub precision: Precision,
    /// Train a LoRA adapter instead of the full model. Default: false.
    pub use_peft: bool,
    /// LoRA rank. Default: 16.
    pub lora_r: usize,
    /// LoRA alpha; the adapter's output is scaled by `lora_alpha / lora_r`. Default: 32.
    pub lora_alpha: usize,
    /// Dropout probability of the adapter's input. Default: 0.05.
    pub lora_dropout: f64,
    /// Target modules of the adapter, such as `q_proj`, or `all-linear`. Default: `all-linear`.
    pub lora_target_modules: StringList,
    /// Rank-stabilized LoRA: scale by `lora_alpha / sqrt(lora_r)`. Default: false.
    pub use_rslora: bool,
    /// Regular expressions; parameters whose names match any of them are frozen. Default: none.
    #[serde(skip_serializing_if = "StringList::is_empty")]
    pub freeze_parameters_regex: StringList,
    /// Peak learning rate, after warmup. Default: 1e-5.
    pub learning_rate: f64,
    /// Learning-rate schedule: `cosine`, `linear` or `constant_with_warmup` after warmup, or `constant` without any.
    /// Default: `cosine`.
    pub lr_scheduler_type: LrScheduler,
    /// Fraction of the optimizer steps spent on linear warmup. Default: 0.05.
    pub warmup_ratio: f64,
    /// Warmup steps; overrides `warmup_ratio`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Optimizer: `adamw`, or `muon`, which uses Muon for the matrices between embedding and LM head. Default: `adamw`.
    pub optim: Optim,
    /// AdamW's decay rate of the first moment. Default: 0.9.
    pub adam_beta1: f64,
    /// AdamW's decay rate of the second moment. Default: 0.95.
    pub adam_beta2: f64,
    /// AdamW's epsilon, added to the denominator. Default: 1e-8.
    pub adam_epsilon: f64,
    /// Decoupled weight decay of matrices; norms and biases have none. Default: 0.1.
    pub weight_decay: f64,
    /// Maximum gradient norm for clipping. Default: 1.
    pub max_grad_norm: f64,
    /// Checkpoint interval in steps. Default: one checkpoint per epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_steps: Option<u64>,
    /// Number of latest checkpoints to keep, not counting the best one and those of `keep_every_epochs`. Default: 1.
    pub save_total_limit: usize,
    /// Interval in epochs of checkpoints that are never deleted, written independently of `save_steps`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_every_epochs: Option<f64>,
    /// Number of consecutive steps skipped because of non-finite values at which the run aborts. Default: 5.
    pub max_skipped_steps: u64,
    /// Metrics loggers besides `events.jsonl`: `tensorboard` (in `runs/`) or `none`. Default: `tensorboard`.
    pub report_to: ReportTo,
}

impl Default for SftSettings {
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
            truncation_strategy: TruncationStrategy::Delete,
            max_tokens_per_batch: 2048,
            recompute: Recompute::Auto,
            precision: Precision::F32,
            use_peft: false,
            lora_r: LORA_R,
            lora_alpha: LORA_ALPHA,
            lora_dropout: LORA_DROPOUT,
            lora_target_modules: ALL_LINEAR.into(),
            use_rslora: false,
            freeze_parameters_regex: StringList::default(),
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

impl SftSettings {
    /// All invalid settings at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        faults.at_least("num_train_epochs", self.num_train_epochs, 1);
        faults.at_least("train_batch_size", self.train_batch_size as u64, 1);
        faults.at_least("max_length", self.max_length as u64, 2);
        faults.at_least("max_tokens_per_batch", self.max_tokens_per_batch as u64, 1);
        faults.positive("learning_rate", self.learning_rate);
        faults.fraction("warmup_ratio", self.warmup_ratio);
        faults.warmup(self.lr_scheduler_type, self.warmup_steps);
        self.durability_faults(&mut faults);
        self.optimizer().faults(&mut faults);
        self.trainable_settings().faults(&mut faults);
        faults.0
    }

    /// The steps of a run with `steps_per_epoch` steps per epoch.
    ///
    /// # Errors
    /// More steps than any run could take.
    pub fn total_steps(&self, steps_per_epoch: u64) -> Result<u64, Fault> {
        let steps = steps_per_epoch.saturating_mul(self.num_train_epochs);
        let too_many = || {
            let what = format!("the run has more than {MAX_STEPS} steps; shorten it");
            Fault::new("num_train_epochs", what)
        };
        (steps <= MAX_STEPS).then_some(steps).ok_or_else(too_many)
    }

    /// The longest example of a model with this context length.
    pub fn example_limit(&self, context_length: usize) -> LengthLimit {
        LengthLimit::of_examples(self.max_length, context_length, self.truncation_strategy)
    }

    /// The trainable parameters.
    pub fn trainable(&self) -> Trainable {
        self.trainable_settings().trainable()
    }

    fn trainable_settings(&self) -> TrainableSettings<'_> {
        TrainableSettings {
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

    /// How the run's models are loaded, onto the CPU; `base` is the folder of the base model.
    pub fn load_options<'a>(&'a self, base: &'a Path, activation_bytes: usize) -> LoadOptions<'a> {
        LoadOptions {
            base,
            precision: self.precision,
            activation_bytes,
            trainable: self.trainable(),
            seed: self.seed,
            device: Device::Cpu,
        }
    }

    /// The optimizer's hyperparameters.
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
        assert_eq!(SftSettings::default().faults(), []);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let sft = SftSettings {
            num_train_epochs: 0,
            learning_rate: f64::NAN,
            lr_scheduler_type: LrScheduler::Constant,
            warmup_steps: Some(5),
            ..SftSettings::default()
        };
        let keys: Vec<_> = sft.faults().into_iter().map(|fault| fault.key).collect();
        assert_eq!(keys, ["num_train_epochs", "learning_rate", "warmup_steps"]);
    }
}
