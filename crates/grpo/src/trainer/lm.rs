//! Causal language modeling on a stream of documents, to pretrain a base model from scratch.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::checkpoint::finite::non_finite;
use crate::error::{Error, Result};
use crate::events::{Event, RankShares, Sink, finite, now_s};
use crate::model::Model;
use crate::schedule::LrSchedule;
use crate::settings::OptimizerSettings;
use crate::update::optimizer::Optimizer;
pub use crate::update::supervised::Example;
use crate::update::supervised::train_step;
use crate::update::{StepParams, Updater};
use embodied_r_dist::ProcessGroup;

/// Settings of language-model training.
#[derive(Debug, Clone, PartialEq)]
pub struct LmSettings {
    /// Tokens per step: documents are added until this is reached.
    pub tokens_per_step: usize,
    /// Maximum tokens per micro-batch.
    pub max_tokens_per_batch: usize,
    /// The learning-rate schedule; its `total_steps` is the length of the run.
    pub schedule: LrSchedule,
    /// The optimizer's hyperparameters.
    pub optimizer: OptimizerSettings,
}

/// Summary of the training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LmReport {
    /// Steps done: fewer than planned if the documents ran out or a stop was requested.
    pub steps: u64,
    /// Tokens processed.
    pub tokens: u64,
    /// The loss of the last step.
    pub loss: f64,
}

/// Trains `model` on `documents`; only their completions contribute to the loss.
///
/// Documents without a prompt or a completion are skipped. Events go to `sinks`; the epoch of a step is the fraction of
/// the run that is done.
///
/// # Errors
/// The model, the optimizer or a sink fails, no document has both parts, or the trained weights are not finite.
pub fn train<M: Model>(
    model: &M,
    documents: impl IntoIterator<Item = Example>,
    settings: &LmSettings,
    sinks: &mut [&mut dyn Sink],
    stop: &AtomicBool,
) -> Result<LmReport> {
    let mut updater =
        Updater::new(Optimizer::new(settings.optimizer, model, &ProcessGroup::default())?);
    let mut documents = documents
        .into_iter()
        .filter(|document| !document.prompt.is_empty() && !document.completion.is_empty());
    let total = settings.schedule.total_steps;
    emit(sinks, &Event::Start { steps: total, done: 0 })?;
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
        let stats = train_step(model, &mut updater, &examples, budget, params, stop)?;
        let Some(stats) = stats else { break };
        report.steps = step + 1;
        report.tokens += stats.tokens;
        report.loss = stats.loss;
        let elapsed = began.elapsed().as_secs_f64();
        let left = elapsed / report.steps as f64 * (total - report.steps) as f64;
        let metrics = finite([
            ("loss", stats.loss),
            ("entropy", stats.entropy),
            ("grad_norm", stats.grad_norm),
            ("learning_rate", lr),
            ("num_tokens", report.tokens as f64),
            ("tokens_per_second", report.tokens as f64 / elapsed.max(1e-9)),
            ("time_left_s", left),
        ]);
        let epoch = report.steps as f64 / total as f64;
        emit(
            sinks,
            &Event::Step {
                step: report.steps,
                epoch,
                time_s: now_s(),
                ranks: RankShares::default(),
                metrics,
            },
        )?;
    }
    if let Some(found) = non_finite(model, &last_prompt, &ProcessGroup::default())? {
        return Err(Error::NonFinitePolicy { found, checkpoint: None });
    }
    emit(sinks, &Event::End { step: report.steps })?;
    if report.steps == 0 && total > 0 && !stop.load(std::sync::atomic::Ordering::Relaxed) {
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

fn emit(sinks: &mut [&mut dyn Sink], event: &Event) -> Result<()> {
    sinks.iter_mut().try_for_each(|sink| sink.event(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::toy::Bigram;
    use crate::schedule::LrScheduler;
    use crate::settings::Optim;

    fn settings(steps: u64) -> LmSettings {
        LmSettings {
            tokens_per_step: 12,
            max_tokens_per_batch: 6,
            schedule: LrSchedule {
                kind: LrScheduler::Cosine,
                peak: 0.3,
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
        }
    }

    fn document(tokens: &[u32]) -> Example {
        Example::new(tokens[..1].to_vec().into(), tokens[1..].to_vec())
    }

    #[test]
    fn a_repeated_document_is_learned() {
        let model = Bigram::new(4, 1);
        let documents = std::iter::repeat(document(&[1, 2, 3, 0]));
        let stop = AtomicBool::new(false);
        let report = train(&model, documents, &settings(60), &mut [], &stop).unwrap();
        assert_eq!((report.steps, report.tokens), (60, 60 * 12));
        assert!(report.loss < 0.1, "{}", report.loss);
    }

    #[test]
    fn a_run_ends_with_its_documents() {
        let model = Bigram::new(4, 1);
        let documents = vec![document(&[1, 2, 3, 0]); 7].into_iter().chain([document(&[1])]);
        let stop = AtomicBool::new(false);
        let report = train(&model, documents, &settings(60), &mut [], &stop).unwrap();
        assert_eq!(report.steps, 3, "two full steps and the rest");
    }

    #[test]
    fn a_stopped_run_reports_its_steps() {
        let model = Bigram::new(4, 1);
        let stop = AtomicBool::new(true);
        let documents = std::iter::repeat(document(&[1, 2]));
        assert_eq!(train(&model, documents, &settings(5), &mut [], &stop).unwrap().steps, 0);
    }
}
