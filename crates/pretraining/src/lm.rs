//! Causal language modeling on a stream of documents, to pretrain a base model from scratch.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::checkpoint::non_finite;
use embodied_r_grpo::model::Model;
use embodied_r_grpo::schedule::LrSchedule;
use embodied_r_grpo::settings::OptimizerSettings;
use embodied_r_grpo::update::optimizer::Optimizer;
use embodied_r_grpo::update::supervised::{Example, train_step};
use embodied_r_grpo::update::{StepParams, Updater};
use embodied_r_grpo::{Error, Result};

use crate::progress::StepProgress;

/// Settings of language-model training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LmSettings {
    /// Tokens per step: documents are added until this is reached.
    pub(crate) tokens_per_step: usize,
    /// Maximum tokens per micro-batch.
    pub(crate) max_tokens_per_batch: usize,
    /// The learning-rate schedule; its `total_steps` is the length of the run.
    pub(crate) schedule: LrSchedule,
    /// The optimizer's hyperparameters.
    pub(crate) optimizer: OptimizerSettings,
}

/// Summary of the training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LmReport {
    /// Steps done: fewer than planned if the documents ran out.
    pub(crate) steps: u64,
    /// Tokens processed.
    pub(crate) tokens: u64,
    /// The loss of the last step.
    pub(crate) loss: f64,
}

/// Trains `model` on `documents`; only their completions contribute to the loss.
///
/// Documents without a prompt or a completion are skipped.
///
/// # Errors
/// The model, the optimizer or `progress` fails, no document has both parts, or the trained weights are not finite.
pub(crate) fn train<M: Model>(
    model: &M,
    documents: impl IntoIterator<Item = Example>,
    settings: &LmSettings,
    progress: &StepProgress<'_>,
) -> Result<LmReport> {
    let mut updater =
        Updater::new(Optimizer::new(settings.optimizer, model, &ProcessGroup::default())?);
    let mut documents = documents
        .into_iter()
        .filter(|document| !document.prompt.is_empty() && !document.completion.is_empty());
    let total = settings.schedule.total_steps;
    progress.start(total);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let mut report = LmReport { steps: 0, tokens: 0, loss: f64::NAN };
    let mut last_prompt = Vec::new();
    for step in 0..total {
        let examples = take(&mut documents, settings.tokens_per_step);
        let examples: Vec<&Example> = examples.iter().collect();
        if examples.is_empty() {
            break;
        }
        if let Some(example) = examples.first() {
            last_prompt = example.prompt.ids().to_vec();
        }
        let lr = settings.schedule.at(step);
        let budget = settings.max_tokens_per_batch;
        let params = StepParams { temperature: 1.0, learning_rate: lr, dropout_seed: step };
        let stats = train_step(model, &mut updater, &examples, budget, params, &stop)?;
        let Some(stats) = stats else { break };
        report.steps = step + 1;
        report.tokens += stats.tokens;
        report.loss = stats.loss;
        let rate = report.tokens as f64 / began.elapsed().as_secs_f64().max(1e-9);
        progress.step(report.steps, &format!("loss {:.4}, {rate:.0} tokens/s", stats.loss))?;
    }
    if let Some(found) = non_finite(model, &last_prompt, &ProcessGroup::default())? {
        return Err(Error::NonFinitePolicy { found, checkpoint: None });
    }
    if report.steps == 0 && total > 0 {
        return Err(Error::TooFew { what: "documents", given: 0, left: 0, needed: 1 });
    }
    Ok(report)
}

/// Takes documents until they have `tokens` tokens.
fn take(documents: &mut impl Iterator<Item = Example>, tokens: usize) -> Vec<Example> {
    let (mut examples, mut taken) = (Vec::new(), 0);
    while taken < tokens {
        let Some(document) = documents.next() else { break };
        taken += document.tokens();
        examples.push(document);
    }
    examples
}

#[cfg(test)]
mod tests {
    use embodied_r_grpo::schedule::LrScheduler;
    use embodied_r_grpo::settings::Optim;
    use embodied_r_policy::{ModelConfig, Policy};
    use serde_json::json;

    use super::*;
    use crate::progress::Lines;

    /// A decoder with a vocabulary of four tokens.
    fn policy() -> Policy {
        let config = json!({
            "model_type": "qwen2", "vocab_size": 4, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
            "rope_theta": 1e4, "tie_word_embeddings": true, "initializer_range": 0.1,
        });
        Policy::random(&ModelConfig::from_json(&config).unwrap(), 1).unwrap()
    }

    fn trained(documents: impl IntoIterator<Item = Example>, steps: u64) -> Result<LmReport> {
        let settings = LmSettings {
            tokens_per_step: 12,
            max_tokens_per_batch: 6,
            schedule: LrSchedule {
                kind: LrScheduler::Cosine,
                peak: 0.02,
                warmup_steps: 2,
                total_steps: steps,
            },
            optimizer: OptimizerSettings {
                optim: Optim::Adamw,
                adam_beta1: 0.9,
                adam_beta2: 0.95,
                adam_epsilon: 1e-8,
                weight_decay: 0.0,
                max_grad_norm: 1.0,
            },
        };
        let lines = Lines::default();
        let progress = StepProgress { lines: &lines, phase: "pretraining", save: &|| Ok(()) };
        train(&policy(), documents, &settings, &progress)
    }

    fn document(tokens: &[u32]) -> Example {
        Example::new(tokens[..1].to_vec().into(), tokens[1..].to_vec())
    }

    #[test]
    fn a_repeated_document_is_learned() {
        let report = trained(std::iter::repeat(document(&[1, 2, 3, 0])), 60).unwrap();
        assert_eq!((report.steps, report.tokens), (60, 60 * 12));
        assert!(report.loss < 0.1, "{}", report.loss);
    }

    #[test]
    fn a_run_ends_with_its_documents() {
        let documents = vec![document(&[1, 2, 3, 0]); 7].into_iter().chain([document(&[1])]);
        assert_eq!(trained(documents, 60).unwrap().steps, 3, "two full steps and the rest");
    }

    #[test]
    fn a_run_without_documents_is_an_error() {
        let error = trained([document(&[1])], 5).unwrap_err();
        assert!(matches!(error, Error::TooFew { what: "documents", .. }), "{error}");
    }
}
