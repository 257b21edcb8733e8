//! Settings of GRPO training.

mod loss;
mod rewards;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use embodied_r_policy::Trainable;
use embodied_r_rewards::service::base_urls;
use embodied_r_rewards::{ExternalRewardConfig, Format, Stage, check_base_url};
use serde::{Deserialize, Serialize};

use super::trainable::{
    ALL_LINEAR, LORA_ALPHA, LORA_DROPOUT, LORA_R, StringList, TrainableSettings,
};
use super::{Fault, Faults, MAX_COUNT, MAX_PER_STEP, Recompute, ReportTo};
use crate::advantages::{AdvantageEstimator, ScaleRewards};
use crate::data::length_limit::{LengthLimit, TruncationStrategy};
use crate::loss::{ImportanceSamplingLevel, ImportanceSamplingMode, LossType};
use crate::model::{LoadOptions, Precision};
use crate::schedule::LrScheduler;
use crate::update::optimizer::{Optim, OptimizerSettings};

/// Default of `metric_for_best_model`.
pub(super) const BEST_METRIC: &str = "eval/accuracy";

/// The judge of the `consistency` reward: does the reasoning lead to the answer?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKind {
    /// The frozen reference model, in process.
    #[default]
    Reference,
    /// An OpenAI-compatible server.
    Http,
}

/// Settings of a GRPO run. The defaults reproduce the paper's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoSettings {
    /// Model directory, or model ID on the Hugging Face Hub.
    pub model: String,
    /// Training questions, JSON as `perceive` writes it.
    pub data: PathBuf,
    /// Output directory of the run: checkpoints, events, completions and the final model.
    pub output: PathBuf,
    /// Evaluation questions, answered greedily every `eval_steps`. Default: no evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<PathBuf>,
    /// System prompt. Default: the project's own, which asks for the `<think>` and `<answer>` tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Random seed of sampling, data order, initialization and dropout. Default: 42.
    pub seed: u64,

    /// Completions sampled per question: the group size G. At least 2. Default: 8.
    pub num_generations: usize,
    /// Completions per step, over all questions and ranks; a multiple of `num_generations`. Default: 32.
    pub generation_batch_size: usize,
    /// Maximum prompt length in tokens; never more than the model's context leaves. Default: 6144.
    pub max_prompt_length: usize,
    /// Questions whose prompts are longer: `delete` leaves them out and reports their number, `raise` does not start the
    /// run. Default: `delete`.
    pub truncation_strategy: TruncationStrategy,
    /// Maximum number of new tokens per completion. Default: 2048.
    pub max_completion_length: usize,
    /// Sampling temperature, also applied to the log-probabilities in the loss. Default: 1.
    pub temperature: f64,
    /// Nucleus sampling: probability mass to sample from; 1 disables it. Default: 1.
    pub top_p: f64,
    /// Top-k sampling: number of tokens to sample from; 0 disables it. Default: 0.
    pub top_k: usize,
    /// Dynamic sampling (DAPO): replace zero-variance groups with groups of other questions. Default: false.
    pub dynamic_sample: bool,
    /// Maximum resampling attempts per step with `dynamic_sample`. Default: 3.
    pub max_resample_times: u64,
    /// Leave zero-variance groups out of the update: of the loss, the counts that it is divided by, and the KL penalty.
    /// With `dynamic_sample` those left after the last attempt. Default: false.
    pub filter_groups: bool,

    /// Loss formulation: `grpo`, `bnpo`, `dr_grpo`, `dapo`, `cispo` or `sapo`. Default: `grpo`.
    pub loss_type: LossType,
    /// Granularity of the importance ratios: `token`, or `sequence` (GSPO). Default: `token`.
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// Clip range below 1: ratios are clipped at `1 - epsilon`. Default: 0.2.
    pub epsilon: f64,
    /// Clip range above 1: ratios are clipped at `1 + epsilon_high`; for `cispo` the upper bound of the ratio itself.
    /// DAPO recommends 0.28. Default: `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Upper bound of the unclipped ratio (two-sided clipping), above `1 + epsilon_high`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// KL coefficient; 0 trains without a KL term and does not load a reference model for it. Default: 0.001.
    pub beta: f64,
    /// Multiply each token's KL by its importance ratio, as in DeepSeek-V3.2. Default: false.
    pub use_bias_correction_kl: bool,
    /// Temperature of `sapo`'s gate for positive advantages. Default: 1.
    pub sapo_temperature_pos: f64,
    /// Temperature of `sapo`'s gate for all other advantages. Default: 1.05.
    pub sapo_temperature_neg: f64,
    /// Fraction of a step's tokens, by highest entropy, that contribute to the policy loss; 1 keeps all. Default: 1.
    pub top_entropy_quantile: f64,
    /// Mean `sampling_logp - logp` above which a completion with a negative advantage is masked (DeepSeek-V3.2).
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_policy_mask_threshold: Option<f64>,
    /// Move the reference model towards the policy during training (TR-DPO). Default: false.
    pub sync_ref_model: bool,
    /// Mixing coefficient of each sync: `reference = alpha · policy + (1 - alpha) · reference`. Default: 0.6.
    pub ref_model_mixup_alpha: f64,
    /// Interval in steps between reference syncs. Default: 512.
    pub ref_model_sync_steps: u64,
    /// Advantage estimator: `grpo`, `rloo` or `gdpo`. Default: `grpo`.
    pub advantage_estimator: AdvantageEstimator,
    /// Reward scaling: `group` divides by the group's standard deviation, `batch` by the batch's, `none` not at all.
    /// Default: `group`.
    pub scale_rewards: ScaleRewards,
    /// Number of iterations μ: optimizer steps per batch of completions. Above 1, later iterations are off-policy.
    /// Default: 1.
    pub num_iterations: usize,
    /// Exclude completions truncated at `max_completion_length` from the loss. Default: false.
    pub mask_truncated_completions: bool,

    /// Peak learning rate, after warmup. Default: 5e-7.
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
    /// Maximum tokens per micro-batch, prompts included. Lower it when memory runs out; the gradient does not change,
    /// except with `bnpo`. If a prompt exceeds half of it, each part of the group may hold as many completion tokens as
    /// the prompt. Default: 2048.
    pub max_tokens_per_batch: usize,
    /// Activation recomputation (gradient checkpointing), and how much of the rollout's activations the update reuses:
    /// `auto` uses the available memory, `all` saves the most memory, `none` is fastest. Results change only by
    /// rounding. Default: `auto`.
    pub recompute: Recompute,
    /// Matmul precision: `f32`, or `bf16` with f32 accumulation. Default: `f32`; on a GPU `bf16`.
    pub precision: Precision,
    /// Matmul precision of the rollout. A lower one than `precision` is faster; see `importance_sampling_correction`.
    /// Default: `precision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_precision: Option<Precision>,
    /// Correct for a rollout in another precision with importance weights. Default: true.
    pub importance_sampling_correction: bool,
    /// How these weights are bounded: truncated or masked, per token or per sequence. Default: `sequence_mask`.
    pub importance_sampling_mode: ImportanceSamplingMode,
    /// Lower bound of these weights. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_sampling_clip_min: Option<f64>,
    /// Upper bound of these weights. Default: 3.
    pub importance_sampling_clip_max: f64,

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

    /// Number of training epochs; needs `reward_weights`, since stages set their own lengths. Default: 1 with
    /// `reward_weights`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_epochs: Option<f64>,
    /// Maximum number of training steps; ends the run early. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Reward weights of the whole run, by name. Default: the stages' weights.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reward_weights: BTreeMap<String, f64>,
    /// Stages of a curriculum, each with its own length and reward weights. Default: the paper's three.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<Stage>,
    /// External rewards, computed by commands or HTTP services. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reward: Vec<ExternalRewardConfig>,
    /// Reading of the `format` reward: `strict`, where each tag occurs once and whitespace around the completion is ignored, or `official`, the
    /// regular expression of ms-swift and the paper's code, which accepts repeated tags. Default: `strict`.
    pub format: Format,
    /// `soft_overlong`: length in tokens at which the penalty reaches -1. Default: `max_completion_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_max_length: Option<usize>,
    /// `soft_overlong`: length in tokens of the interval over which the penalty grows; required by this reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_cache_length: Option<usize>,
    /// `repetition`: n-gram size in words. Default: 3.
    pub repetition_n_grams: usize,
    /// `repetition`: maximum penalty, 0 or less, approached by a fully repetitive completion. Default: -1.
    pub repetition_max_penalty: f64,
    /// `cosine`: reward of a wrong answer of length 0. Default: -0.5.
    pub cosine_min_len_value_wrong: f64,
    /// `cosine`: reward of a wrong answer of `cosine_max_len` tokens. Default: 0.
    pub cosine_max_len_value_wrong: f64,
    /// `cosine`: reward of a correct answer of length 0. Default: 1.
    pub cosine_min_len_value_correct: f64,
    /// `cosine`: reward of a correct answer of `cosine_max_len` tokens. Default: 0.5.
    pub cosine_max_len_value_correct: f64,
    /// `cosine`: length in tokens at the end of the curve. Default: `max_completion_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_max_len: Option<usize>,

    /// Judge of the `consistency` reward: `reference` (in process) or `http`. Default: `reference`.
    pub judge: JudgeKind,
    /// Base URL of the judge's OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`; required by `judge =
    /// "http"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_base_url: Option<String>,
    /// Model name that the judge's server expects; required by `judge = "http"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_model: Option<String>,

    /// Checkpoint interval in steps. Default: 100.
    pub save_steps: u64,
    /// Number of latest checkpoints to keep, not counting the best one and those of `keep_every_epochs`. Default: 3.
    pub save_total_limit: usize,
    /// Interval in epochs of checkpoints that are never deleted, written independently of `save_steps`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_every_epochs: Option<f64>,
    /// Evaluation interval in steps; the run also evaluates before the first and after the last step. Default: 100.
    pub eval_steps: u64,
    /// Evaluation metric that selects the best checkpoint. Default: `eval/accuracy`.
    pub metric_for_best_model: String,
    /// Whether a greater value of that metric is better. Default: true, unless its name ends in `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
    /// Number of consecutive steps skipped because of non-finite values at which the run aborts. Default: 5.
    pub max_skipped_steps: u64,
    /// Compute and log the rewards that a stage or `reward_weights` lists even while their weight is 0. This does not
    /// change training, but the judge and external rewards take time; `accuracy` and `format` are always logged.
    /// Default: false.
    pub log_unweighted_rewards: bool,
    /// Write every step's completions as parquet. Default: true.
    pub log_completions: bool,
    /// Metrics loggers besides `events.jsonl`: `tensorboard` (in `runs/`) or `none`. Default: `tensorboard`.
    pub report_to: ReportTo,
}

impl Default for GrpoSettings {
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
            truncation_strategy: TruncationStrategy::Delete,
            max_completion_length: 2048,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            dynamic_sample: false,
            max_resample_times: 3,
            filter_groups: false,
            loss_type: LossType::Grpo,
            importance_sampling_level: ImportanceSamplingLevel::Token,
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
            importance_sampling_mode: ImportanceSamplingMode::SequenceMask,
            importance_sampling_clip_min: None,
            importance_sampling_clip_max: 3.0,
            use_peft: false,
            lora_r: LORA_R,
            lora_alpha: LORA_ALPHA,
            lora_dropout: LORA_DROPOUT,
            lora_target_modules: ALL_LINEAR.into(),
            use_rslora: false,
            freeze_parameters_regex: StringList::default(),
            num_train_epochs: None,
            max_steps: None,
            reward_weights: BTreeMap::new(),
            stage: Vec::new(),
            reward: Vec::new(),
            format: Format::Strict,
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
            log_unweighted_rewards: false,
            log_completions: true,
            report_to: ReportTo::default(),
        }
    }
}

impl GrpoSettings {
    /// All invalid settings at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.rollout_faults(&mut faults);
        self.loss_faults(&mut faults);
        self.optimizer_faults(&mut faults);
        self.trainable_settings().faults(&mut faults);
        self.durability_faults(&mut faults);
        self.reward_faults(&mut faults);
        let http = self.judge == JudgeKind::Http;
        faults.unless(!http || self.judge_base_url.is_some(), "judge_base_url", || {
            "is required by `judge = \"http\"`".into()
        });
        for url in self.judge_base_url.iter().flat_map(|urls| base_urls(urls)) {
            if let Err(error) = check_base_url(url) {
                faults.unless(false, "judge_base_url", || error.to_string());
            }
        }
        faults.unless(!http || self.judge_model.is_some(), "judge_model", || {
            "is required by `judge = \"http\"`".into()
        });
        faults.0
    }

    fn rollout_faults(&self, faults: &mut Faults) {
        faults.between("num_generations", self.num_generations as u64, 2..=MAX_PER_STEP);
        let longest = self.max_completion_length as u64;
        faults.between("max_completion_length", longest, 1..=MAX_COUNT);
        faults.at_least("max_prompt_length", self.max_prompt_length as u64, 1);
        faults.unless(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", || {
            format!("must be greater than 0 and at most 1, not {}", self.top_p)
        });
        let (batch, group) = (self.generation_batch_size, self.num_generations.max(1));
        faults.unless(batch as u64 <= MAX_COUNT, "generation_batch_size", || {
            format!("must be at most {MAX_COUNT}, not {batch}")
        });
        faults.unless(batch > 0 && batch.is_multiple_of(group), "generation_batch_size", || {
            let below = batch / group * group;
            let nearest = if below == 0 {
                format!("{group}")
            } else {
                format!("{below} or {}", below + group)
            };
            format!("must be a multiple of `num_generations` = {group}, not {batch}; try {nearest}")
        });
    }

    fn optimizer_faults(&self, faults: &mut Faults) {
        faults.positive("learning_rate", self.learning_rate);
        faults.fraction("warmup_ratio", self.warmup_ratio);
        faults.warmup(self.lr_scheduler_type, self.warmup_steps);
        self.optimizer().faults(faults);
        faults.at_least("max_tokens_per_batch", self.max_tokens_per_batch as u64, 1);
    }

    /// The longest prompt of a model with this context length.
    pub fn prompt_limit(&self, context_length: usize) -> LengthLimit {
        LengthLimit::of_prompts(self.max_prompt_length, context_length, self.truncation_strategy)
    }

    /// Questions per step.
    pub fn questions_per_step(&self) -> usize {
        self.generation_batch_size / self.num_generations.max(1)
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

    fn faults(change: impl FnOnce(&mut GrpoSettings)) -> Vec<String> {
        let mut train = GrpoSettings::default();
        change(&mut train);
        train.faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_have_no_fault_and_are_the_papers_stages() {
        assert_eq!(GrpoSettings::default().faults(), []);
        assert_eq!(GrpoSettings::default().stages().unwrap().stages().len(), 3);
        assert_eq!(GrpoSettings::default().questions_per_step(), 4);
    }

    #[test]
    fn an_indivisible_batch_size_suggests_the_nearest_multiples() {
        assert_eq!(
            faults(|train| train.generation_batch_size = 30),
            ["`generation_batch_size`: must be a multiple of `num_generations` = 8, not 30; try \
                 24 or 32"]
        );
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let found = faults(|train| {
            train.learning_rate = -1.0;
            train.epsilon = 2.0;
            train.num_generations = 1;
        });
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn warmup_steps_that_a_constant_would_ignore_are_a_fault() {
        let found = |lr_scheduler_type: LrScheduler, warmup_steps: Option<u64>| {
            faults(|train| {
                (train.lr_scheduler_type, train.warmup_steps) = (lr_scheduler_type, warmup_steps);
            })
        };
        assert_eq!(
            found(LrScheduler::Constant, Some(5)),
            [
                "`warmup_steps`: has no effect with `lr_scheduler_type = \"constant\"`; use \"constant_with_warmup\""
            ]
        );
        for (kind, steps) in [
            (LrScheduler::Constant, Some(0)),
            (LrScheduler::Constant, None),
            (LrScheduler::ConstantWithWarmup, Some(5)),
            (LrScheduler::Cosine, Some(5)),
        ] {
            assert_eq!(found(kind, steps), [""; 0]);
        }
    }
}
