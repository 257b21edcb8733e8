//! Plain language modelling on a stream of documents, for a base that nobody else has trained.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::events::{Event, Sink, finite, now_s};
use crate::model::Model;
use crate::optimizer::{Optimizer, OptimizerSettings};
use crate::schedule::Schedule;
pub use crate::supervised::Example;
use crate::supervised::learn;
use crate::team::Team;
use crate::update::{Pace, Updater};

/// How a language model is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Tokens of each step: documents are taken until they have as many.
    pub tokens_per_step: usize,
    /// Tokens of a micro-batch.
    pub max_tokens_per_batch: usize,
    /// The learning rate, and with `total_steps` the length of the run.
    pub schedule: Schedule,
    /// The optimiser's numbers.
    pub optimizer: OptimizerSettings,
}

/// How the training went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trained {
    /// Steps done: fewer than planned if the documents ran out or the user wanted to stop.
    pub steps: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// The loss of the last step.
    pub loss: f64,
}

/// Trains `model` on `documents`, of each of which the completion is learnt.
///
/// Documents that lack either part are passed over. Events go to `sinks`; the epoch of a step is
/// its share of the run.
///
/// # Errors
/// What the model, the optimiser or a sink return; no document has both parts.
pub fn train<M: Model>(
    model: &M,
    documents: impl IntoIterator<Item = Example>,
    settings: &Settings,
    sinks: &mut [&mut dyn Sink],
    stop: &AtomicBool,
) -> Result<Trained> {
    let mut updater = Updater::new(Optimizer::new(settings.optimizer, model, &Team::default())?);
    let mut documents = documents
        .into_iter()
        .filter(|document| !document.prompt.is_empty() && !document.completion.is_empty());
    let total = settings.schedule.total_steps;
    emit(sinks, &Event::Start { steps: total, done: 0 })?;
    let began = Instant::now();
    let mut trained = Trained { steps: 0, tokens: 0, loss: f64::NAN };
    for step in 0..total {
        let examples = take(&mut documents, settings.tokens_per_step);
        let examples: Vec<&Example> = examples.iter().collect();
        if examples.is_empty() {
            break;
        }
        let lr = settings.schedule.at(step);
        let budget = settings.max_tokens_per_batch;
        let pace = Pace { temperature: 1.0, learning_rate: lr, noise: step };
        let learned = learn(model, &mut updater, &examples, budget, pace, stop)?;
        let Some(learned) = learned else { break };
        trained.steps = step + 1;
        trained.tokens += learned.tokens;
        trained.loss = learned.loss;
        let elapsed = began.elapsed().as_secs_f64();
        let left = elapsed / trained.steps as f64 * (total - trained.steps) as f64;
        let metrics = finite([
            ("loss", learned.loss),
            ("entropy", learned.entropy),
            ("grad_norm", learned.grad_norm),
            ("learning_rate", lr),
            ("num_tokens", trained.tokens as f64),
            ("tokens_per_second", trained.tokens as f64 / elapsed.max(1e-9)),
            ("time_left_s", left),
        ]);
        let epoch = trained.steps as f64 / total as f64;
        emit(sinks, &Event::Step { step: trained.steps, epoch, time_s: now_s(), metrics })?;
    }
    emit(sinks, &Event::End { step: trained.steps })?;
    if trained.steps == 0 && total > 0 && !stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Error::TooFew { what: "documents", given: 0, left: 0, needed: 1 });
    }
    Ok(trained)
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
    use crate::model::toy::Bigram;
    use crate::optimizer::Optim;
    use crate::schedule::LrScheduler;

    fn settings(steps: u64) -> Settings {
        Settings {
            tokens_per_step: 12,
            max_tokens_per_batch: 6,
            schedule: Schedule {
                kind: LrScheduler::Cosine,
                peak: 0.3,
                warmup_steps: 2,
                total_steps: steps,
            },
            optimizer: OptimizerSettings {
                optim: Optim::Adamw,
                beta1: 0.9,
                beta2: 0.95,
                epsilon: 1e-8,
                weight_decay: 0.0,
                max_grad_norm: 1.0,
            },
        }
    }

    fn document(tokens: &[u32]) -> Example {
        Example { prompt: tokens[..1].to_vec(), completion: tokens[1..].to_vec() }
    }

    #[test]
    fn a_repeated_document_is_learnt() {
        let model = Bigram::new(4, 1);
        let documents = std::iter::repeat(document(&[1, 2, 3, 0]));
        let stop = AtomicBool::new(false);
        let trained = train(&model, documents, &settings(60), &mut [], &stop).unwrap();
        assert_eq!((trained.steps, trained.tokens), (60, 60 * 12));
        assert!(trained.loss < 0.1, "{}", trained.loss);
    }

    #[test]
    fn a_run_ends_with_its_documents() {
        let model = Bigram::new(4, 1);
        let documents = vec![document(&[1, 2, 3, 0]); 7].into_iter().chain([document(&[1])]);
        let stop = AtomicBool::new(false);
        let trained = train(&model, documents, &settings(60), &mut [], &stop).unwrap();
        assert_eq!(trained.steps, 3, "two full steps and the rest");
    }

    #[test]
    fn a_stopped_run_says_how_far_it_came() {
        let model = Bigram::new(4, 1);
        let stop = AtomicBool::new(true);
        let documents = std::iter::repeat(document(&[1, 2]));
        assert_eq!(train(&model, documents, &settings(5), &mut [], &stop).unwrap().steps, 0);
    }
}
