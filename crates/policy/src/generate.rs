//! Completing a list of prompts: the engine run until all is done.

use std::collections::HashMap;
use std::sync::Arc;

use embodied_r_kernels::Precision;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, EngineOptions, InferenceModel, Output};
use crate::error::Result;
use crate::policy::Policy;
use crate::prompt::Prompt;
use crate::sampling::Sampling;
use crate::tape::Tape;

/// A prompt and how many completions are wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt; at least one token.
    pub prompt: Prompt,
    /// Number of completions.
    pub samples: usize,
    /// Seed of this request: random numbers depend on (stream, sample, position) alone.
    pub stream: u64,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finish {
    /// It drew a stop token.
    Stop,
    /// It reached the most tokens allowed, or the model's longest sequence.
    Length,
}

/// A completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its tokens, the stop token included.
    pub ids: Vec<u32>,
    /// Each token's log-probability, as [`crate::Token::logp`].
    pub logps: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// What happens while completions are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerateEvent {
    /// A step drew so many tokens.
    Tokens(usize),
    /// A completion is finished.
    Finished {
        /// Index of its request.
        request: usize,
        /// Index among the request's samples.
        sample: usize,
    },
}

impl InferenceModel {
    /// Completes each request's prompt `samples` times.
    ///
    /// Gives the samples in the order of the requests. A sample depends neither on the order in
    /// which others finish nor on what else is asked for.
    ///
    /// # Errors
    /// A prompt is empty, has an id outside the vocabulary, or leaves no room for a token; the
    /// sampling's numbers are out of range.
    pub fn generate(
        self: &Arc<Self>,
        requests: &[Request],
        sampling: &Sampling,
        on_event: &dyn Fn(GenerateEvent),
    ) -> Result<Vec<Vec<Sample>>> {
        Ok(self.generate_taped(requests, sampling, None, on_event)?.0)
    }

    /// As [`Self::generate`]; puts on the tape, if there is one, what the update needs of it.
    fn generate_taped(
        self: &Arc<Self>,
        requests: &[Request],
        sampling: &Sampling,
        tape: Option<Tape>,
        on_event: &dyn Fn(GenerateEvent),
    ) -> Result<(Vec<Vec<Sample>>, Option<Tape>)> {
        let blank = Sample { ids: Vec::new(), logps: Vec::new(), finish: Finish::Length };
        let mut done: Vec<Vec<Sample>> =
            requests.iter().map(|request| vec![blank.clone(); request.samples]).collect();
        if sampling.max_new_tokens == 0 {
            return Ok((done, None));
        }
        let mut engine = Engine::new(self.clone(), EngineOptions::default())?;
        if let Some(tape) = tape {
            engine.record(tape);
        }
        let sampling = Arc::new(sampling.clone());
        let mut places = HashMap::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            let id = engine.add(request, &sampling).map_err(|error| error.at_sequence(index))?;
            places.insert(id, index);
        }
        while engine.has_work() {
            let mut tokens = 0;
            for output in engine.step()? {
                match output {
                    Output::Token { request, sample, token } => {
                        let sample = &mut done[places[&request]][sample];
                        sample.ids.push(token.id);
                        sample.logps.push(token.logp);
                        tokens += 1;
                    }
                    Output::Finished { request, sample, finish } => {
                        let request = places[&request];
                        done[request][sample].finish = finish;
                        on_event(GenerateEvent::Finished { request, sample });
                    }
                }
            }
            on_event(GenerateEvent::Tokens(tokens));
        }
        Ok((done, engine.into_tape()))
    }
}

impl Policy {
    /// [`InferenceModel::generate`] with the weights as they are now.
    ///
    /// # Errors
    /// As there.
    pub fn generate(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        on_event: &dyn Fn(GenerateEvent),
    ) -> Result<Vec<Vec<Sample>>> {
        Ok(self.generate_taped(requests, sampling, (self.precision(), None), on_event)?.0)
    }

    /// As [`Self::generate`], with products in `precision`. The tape, if there is one, takes what the update needs of it
    /// in the place of what it held; it is given back unless the update would compute something else: in another
    /// precision, or with dropout.
    ///
    /// # Errors
    /// As [`InferenceModel::generate`].
    pub fn generate_taped(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        (precision, tape): (Precision, Option<Tape>),
        on_event: &dyn Fn(GenerateEvent),
    ) -> Result<(Vec<Vec<Sample>>, Option<Tape>)> {
        let repeats = precision == self.precision() && !self.drops();
        let tape = tape.filter(|_| repeats).map(Tape::cleared);
        let model = Arc::new(self.sampler(precision)?);
        model.generate_taped(requests, sampling, tape, on_event)
    }
}
