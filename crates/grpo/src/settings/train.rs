//! Settings of GRPO training.

mod loss;
mod rewards;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use embodied_r_policy::Trainable;
use embodied_r_rewards::{ExternalReward, Stage};
use serde::{Deserialize, Serialize};

use super::durability::BEST_METRIC;
use super::trainable::{ALL_LINEAR, Asked, LORA_ALPHA, LORA_DROPOUT, LORA_R, Texts};
use super::{Fault, Faults, Recompute, ReportTo};
use crate::advantages::{AdvantageEstimator, ScaleRewards};
use crate::loss::{CorrectionMode, Level, LossType};
use crate::model::{Loading, Precision};
use crate::optimizer::{Optim, OptimizerSettings};
use crate::schedule::LrScheduler;

/// Who judges whether the reasoning leads to the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKind {
    /// The frozen reference, in process.
    #[default]
    Reference,
    /// An OpenAI-compatible server.
    Http,
}

/// Settings of a GRPO run. The defaults are the paper's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Folder of the model, or its name on the hub.
    pub model: String,
    /// Questions to train on, JSON as `perceive` writes it.
    pub data: PathBuf,
    /// Folder of the run.
    pub output: PathBuf,
    /// Questions to evaluate on in the course of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<PathBuf>,
    /// System prompt; without it the project's own, which asks for the two tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Seed of all random numbers.
    pub seed: u64,

    /// Completions of each question, G.
    pub num_generations: usize,
    /// Completions of each step, over all questions.
    pub generation_batch_size: usize,
    /// Tokens of a prompt; a question with more is left out, and counted.
    pub max_prompt_length: usize,
    /// New tokens of a completion.
    pub max_completion_length: usize,
    /// Temperature of sampling, and of the log-probabilities in the loss.
    pub temperature: f64,
    /// Probability mass that is sampled from; 1 is all.
    pub top_p: f64,
    /// Number of tokens that are sampled from; 0 is all.
    pub top_k: usize,
    /// Groups whose rewards are all equal give way to groups of other questions.
    pub dynamic_sample: bool,
    /// How often other questions are tried in a step.
    pub max_resample_times: u64,

    /// The form of the loss.
    pub loss_type: LossType,
    /// Ratios by token or by completion.
    pub importance_sampling_level: Level,
    /// Lower clip.
    pub epsilon: f64,
    /// Upper clip; without it as `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Upper bound of the unclipped ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Weight of the divergence from the reference.
    pub beta: f64,
    /// Whether the divergence is multiplied by the importance ratio, as in DeepSeek-V3.2.
    pub use_bias_correction_kl: bool,
    /// Temperature of `sapo`'s sigmoid for positive advantages.
    pub sapo_temperature_pos: f64,
    /// Temperature of `sapo`'s sigmoid for all other advantages.
    pub sapo_temperature_neg: f64,
    /// Share of a step's tokens, those with the highest entropy, that the policy learns from.
    pub top_entropy_quantile: f64,
    /// Mean distance from the sampler at which a completion with a negative advantage is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_policy_mask_threshold: Option<f64>,
    /// The reference follows the policy in the course of training.
    pub sync_ref_model: bool,
    /// Share of the policy in the reference each time: `mixup · policy + (1 - mixup) · reference`.
    pub ref_model_mixup_alpha: f64,
    /// Steps between two such times.
    pub ref_model_sync_steps: u64,
    /// How advantages follow from rewards.
    pub advantage_estimator: AdvantageEstimator,
    /// What advantages are divided by.
    pub scale_rewards: ScaleRewards,
    /// Optimiser steps on each batch of completions.
    pub num_iterations: usize,
    /// Completions that were cut off at `max_completion_length` do not count.
    pub mask_truncated_completions: bool,

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
    /// Tokens of a micro-batch, prompts included. Behind a prompt of more than half of it, parts of its group have as
    /// many as the prompt.
    pub max_tokens_per_batch: usize,
    /// Which layers the backward computes again, or how much of the rollout it takes over: it changes time and
    /// memory, and results by rounding alone.
    pub recompute: Recompute,
    /// What products with weights are made of: `f32`, or `bf16` with sums in f32.
    pub precision: Precision,
    /// The same for sampling alone; without it as `precision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_precision: Option<Precision>,
    /// Whether completions that were sampled in another precision are weighed by its distance.
    pub importance_sampling_correction: bool,
    /// How these weights are bounded.
    pub importance_sampling_mode: CorrectionMode,
    /// Their lower bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_sampling_clip_min: Option<f64>,
    /// Their upper bound.
    pub importance_sampling_clip_max: f64,

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

    /// Passes over the questions, where there are no stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_epochs: Option<f64>,
    /// Ends the run early, after so many steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Weights of the rewards for the whole run, where there are no stages.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reward_weights: BTreeMap<String, f64>,
    /// Spans of the run with weights of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<Stage>,
    /// Rewards by commands and services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reward: Vec<ExternalReward>,
    /// `soft_overlong`: tokens from which the punishment is full; without it
    /// `max_completion_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_max_length: Option<usize>,
    /// `soft_overlong`: tokens over which the punishment grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_cache_length: Option<usize>,
    /// `repetition`: words of an n-gram.
    pub repetition_n_grams: usize,
    /// `repetition`: what nothing but repetition comes near to.
    pub repetition_max_penalty: f64,
    /// `cosine`: value of a wrong answer of no length.
    pub cosine_min_len_value_wrong: f64,
    /// `cosine`: value of a wrong answer of `cosine_max_len` tokens.
    pub cosine_max_len_value_wrong: f64,
    /// `cosine`: value of a right answer of no length.
    pub cosine_min_len_value_correct: f64,
    /// `cosine`: value of a right answer of `cosine_max_len` tokens.
    pub cosine_max_len_value_correct: f64,
    /// `cosine`: tokens at the end of the curve; without it `max_completion_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_max_len: Option<usize>,

    /// Who judges consistency.
    pub judge: JudgeKind,
    /// The judge's server, such as `http://127.0.0.1:8000/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_base_url: Option<String>,
    /// The judge's model, as its server calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_model: Option<String>,

    /// Steps between checkpoints.
    pub save_steps: u64,
    /// Checkpoints to keep; the best one comes on top, and those of `keep_every_epochs`.
    pub save_total_limit: usize,
    /// Epochs between checkpoints that are written whatever `save_steps` says, and never removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_every_epochs: Option<f64>,
    /// Steps between evaluations; there is one before the first step and one after the last too.
    pub eval_steps: u64,
    /// The metric of the evaluations by which the best checkpoint is kept.
    pub metric_for_best_model: String,
    /// Whether that metric should rise; without it all should but those whose name ends in `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
    /// Steps in a row that are left out, since something in them is not finite, before the run gives
    /// up.
    pub max_skipped_steps: u64,
    /// Writes every step's completions as parquet.
    pub log_completions: bool,
    /// Who is told of the figures beside `events.jsonl`: `tensorboard` (in `runs/`) or `none`.
    pub report_to: ReportTo,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            model: String::new(),
            data: PathBuf::new(),
            output: PathBuf::new(),
            eval_data: None,
            system_prompt: None,
            seed: 42,
            num_generations: 8,
            generation_batch_size: 32,
            max_prompt_length: 6144,
            max_completion_length: 2048,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            dynamic_sample: false,
            max_resample_times: 3,
            loss_type: LossType::Grpo,
            importance_sampling_level: Level::Token,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            beta: 0.001,
            use_bias_correction_kl: false,
            sapo_temperature_pos: 1.0,
            sapo_temperature_neg: 1.05,
            top_entropy_quantile: 1.0,
            off_policy_mask_threshold: None,
            sync_ref_model: false,
            ref_model_mixup_alpha: 0.6,
            ref_model_sync_steps: 512,
            advantage_estimator: AdvantageEstimator::Grpo,
            scale_rewards: ScaleRewards::Group,
            num_iterations: 1,
            mask_truncated_completions: false,
            learning_rate: 5e-7,
            lr_scheduler_type: LrScheduler::Cosine,
            warmup_ratio: 0.05,
            warmup_steps: None,
            optim: Optim::Adamw,
            adam_beta1: 0.9,
            adam_beta2: 0.95,
            adam_epsilon: 1e-8,
            weight_decay: 0.1,
            max_grad_norm: 1.0,
            max_tokens_per_batch: 2048,
            recompute: Recompute::Auto,
            precision: Precision::F32,
            rollout_precision: None,
            importance_sampling_correction: true,
            importance_sampling_mode: CorrectionMode::SequenceMask,
            importance_sampling_clip_min: None,
            importance_sampling_clip_max: 3.0,
            use_peft: false,
            lora_r: LORA_R,
            lora_alpha: LORA_ALPHA,
            lora_dropout: LORA_DROPOUT,
            lora_target_modules: ALL_LINEAR.into(),
            use_rslora: false,
            freeze_parameters_regex: Texts::default(),
            num_train_epochs: None,
            max_steps: None,
            reward_weights: BTreeMap::new(),
            stage: Vec::new(),
            reward: Vec::new(),
            soft_max_length: None,
            soft_cache_length: None,
            repetition_n_grams: 3,
            repetition_max_penalty: -1.0,
            cosine_min_len_value_wrong: -0.5,
            cosine_max_len_value_wrong: 0.0,
            cosine_min_len_value_correct: 1.0,
            cosine_max_len_value_correct: 0.5,
            cosine_max_len: None,
            judge: JudgeKind::Reference,
            judge_base_url: None,
            judge_model: None,
            save_steps: 100,
            save_total_limit: 3,
            keep_every_epochs: None,
            eval_steps: 100,
            metric_for_best_model: BEST_METRIC.into(),
            greater_is_better: None,
            max_skipped_steps: 5,
            log_completions: true,
            report_to: ReportTo::default(),
        }
    }
}

impl Train {
    /// All faults that the types leave possible, at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.rollout_faults(&mut faults);
        self.loss_faults(&mut faults);
        self.optimizer_faults(&mut faults);
        self.asked().faults(&mut faults);
        self.durability_faults(&mut faults);
        self.reward_faults(&mut faults);
        let http = self.judge == JudgeKind::Http;
        faults.unless(!http || self.judge_base_url.is_some(), "judge_base_url", || {
            "is needed by `judge = \"http\"`".into()
        });
        faults.unless(!http || self.judge_model.is_some(), "judge_model", || {
            "is needed by `judge = \"http\"`".into()
        });
        faults.0
    }

    fn rollout_faults(&self, faults: &mut Faults) {
        faults.at_least("num_generations", self.num_generations as u64, 2);
        faults.at_least("max_prompt_length", self.max_prompt_length as u64, 1);
        faults.unless(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", || {
            format!("is {}, must be greater than 0 and at most 1", self.top_p)
        });
        let (batch, group) = (self.generation_batch_size, self.num_generations.max(1));
        faults.unless(batch > 0 && batch.is_multiple_of(group), "generation_batch_size", || {
            let below = batch / group * group;
            let nearest = if below == 0 {
                format!("{group}")
            } else {
                format!("{below} or {}", below + group)
            };
            format!("is {batch}, must be a multiple of `num_generations` = {group}; take {nearest}")
        });
    }

    fn optimizer_faults(&self, faults: &mut Faults) {
        faults.positive("learning_rate", self.learning_rate);
        faults.share("warmup_ratio", self.warmup_ratio);
        self.optimizer().faults(faults);
        faults.at_least("max_tokens_per_batch", self.max_tokens_per_batch as u64, 1);
    }

    /// Questions of each step.
    pub fn questions_per_step(&self) -> usize {
        self.generation_batch_size / self.num_generations.max(1)
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

    fn faults(change: impl FnOnce(&mut Train)) -> Vec<String> {
        let mut train = Train::default();
        change(&mut train);
        train.faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_have_no_fault_and_are_the_papers_stages() {
        assert_eq!(Train::default().faults(), []);
        assert_eq!(Train::default().stages().unwrap().stages().len(), 3);
        assert_eq!(Train::default().questions_per_step(), 4);
    }

    #[test]
    fn a_batch_that_does_not_divide_is_told_the_nearest_that_do() {
        assert_eq!(
            faults(|train| train.generation_batch_size = 30),
            ["`generation_batch_size` is 30, must be a multiple of `num_generations` = 8; take \
                 24 or 32"]
        );
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let found = faults(|train| {
            train.learning_rate = -1.0;
            train.epsilon = 2.0;
            train.num_generations = 1;
        });
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
