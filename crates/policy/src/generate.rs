//! Batch generation: runs the engine until all completions are finished.

use std::collections::HashMap;
use std::sync::Arc;

use embodied_r_kernels::Precision;

use crate::activation_cache::ActivationCache;
use crate::engine::{
    Engine, EngineOptions, EngineOutput, FinishReason, GenerationRequest, InferenceModel,
    NonFiniteLogits,
};
use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::sampling::SamplingParams;

/// A completion.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionOutput {
    /// Its token ids, the stop token included.
    pub ids: Vec<u32>,
    /// Each token's log-probability, as [`crate::SampledToken::logp`].
    pub logps: Vec<f32>,
    /// Why it finished.
    pub finish_reason: FinishReason,
}

/// Progress of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerateEvent {
    /// A step sampled so many tokens.
    Tokens(usize),
    /// A completion has finished.
    Finished {
        /// Index of its request.
        request: usize,
        /// Index of the sample within the request.
        sample: usize,
    },
}

/// How a trained model generates.
#[derive(Debug)]
pub struct GenerateOptions<C = ActivationCache> {
    /// Precision of matmuls; by default the model's own.
    pub precision: Option<Precision>,
    /// The activation cache to fill for the update, if any.
    pub activation_cache: Option<C>,
}

impl<C> Default for GenerateOptions<C> {
    fn default() -> Self {
        Self { precision: None, activation_cache: None }
    }
}

impl InferenceModel {
    /// Samples `samples` completions for each request's prompt.
    ///
    /// Returns the samples in the order of the requests. A sample does not depend on the other requests or
    /// on the order in which they finish.
    ///
    /// # Errors
    /// A prompt is empty, has an id outside the vocabulary, or fills the context; a sampling parameter is
    /// out of range; [`Error::NonFiniteLogits`].
    pub fn generate(
        self: &Arc<Self>,
        requests: &[GenerationRequest],
        sampling: &SamplingParams,
        on_event: &dyn Fn(GenerateEvent),
    ) -> Result<Vec<Vec<CompletionOutput>>> {
        let engine = Engine::new(self.clone(), EngineOptions::default())?;
        Ok(complete(engine, requests, sampling, None, on_event)?.0)
    }
}

/// Runs all `requests` in `engine`; records activations for the update if an activation cache is given.
fn complete(
    mut engine: Engine,
    requests: &[GenerationRequest],
    sampling: &SamplingParams,
    activation_cache: Option<ActivationCache>,
    on_event: &dyn Fn(GenerateEvent),
) -> Result<(Vec<Vec<CompletionOutput>>, Option<ActivationCache>)> {
    let blank = CompletionOutput {
        ids: Vec::new(),
        logps: Vec::new(),
        finish_reason: FinishReason::Length,
    };
    let mut done: Vec<Vec<CompletionOutput>> =
        requests.iter().map(|request| vec![blank.clone(); request.samples]).collect();
    if sampling.max_new_tokens == 0 {
        return Ok((done, None));
    }
    if let Some(activation_cache) = activation_cache {
        engine.record_activations(activation_cache);
    }
    let sampling = Arc::new(sampling.clone());
    let mut indices = HashMap::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let id = engine.add(request, &sampling).map_err(|error| error.at_sequence(index))?;
        indices.insert(id, index);
    }
    while engine.has_work() {
        let mut tokens = 0;
        for output in engine.step()? {
            match output {
                EngineOutput::Prefilled { .. } => {}
                EngineOutput::Token { request, sample, token } => {
                    let sample = &mut done[indices[&request]][sample];
                    sample.ids.push(token.id);
                    sample.logps.push(token.logp);
                    tokens += 1;
                }
                EngineOutput::Finished { request, sample, finish_reason } => {
                    let request = indices[&request];
                    done[request][sample].finish_reason = finish_reason;
                    on_event(GenerateEvent::Finished { request, sample });
                }
                EngineOutput::NonFinite { .. } => return Err(Error::NonFiniteLogits),
            }
        }
        on_event(GenerateEvent::Tokens(tokens));
    }
    Ok((done, engine.into_activation_cache()))
}

impl Policy {
    /// [`InferenceModel::generate`] with the current weights. Where the logits are not finite, tokens are arbitrary and
    /// their log-probabilities NaN.
    ///
    /// # Errors
    /// A prompt or a sampling parameter is invalid, as in [`InferenceModel::generate`].
    pub fn generate(
        &self,
        requests: &[GenerationRequest],
        sampling: &SamplingParams,
        on_event: &dyn Fn(GenerateEvent),
    ) -> Result<Vec<Vec<CompletionOutput>>> {
        let options = GenerateOptions::default();
        Ok(self.generate_with_activation_cache(requests, sampling, options, on_event)?.0)
    }

    /// As [`Self::generate`], with `options`. The activation cache, if given, is cleared, records the activations for the
    /// update and is returned. None is returned if the update's forward would differ from the rollout's: with another
    /// precision or with dropout.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_with_activation_cache(
        &self,
        requests: &[GenerationRequest],
        sampling: &SamplingParams,
        options: GenerateOptions,
        on_event: &dyn Fn(GenerateEvent),
    ) -> Result<(Vec<Vec<CompletionOutput>>, Option<ActivationCache>)> {
        let precision = options.precision.unwrap_or_else(|| self.precision());
        let repeats = precision == self.precision() && !self.has_dropout();
        let activation_cache =
            options.activation_cache.filter(|_| repeats).map(ActivationCache::cleared);
        let model = Arc::new(self.rollout_model(precision)?);
        let engine = Engine::new(model, EngineOptions::default())?;
        let engine = engine.with_non_finite(NonFiniteLogits::Sample);
        let embedded = |request: &GenerationRequest| {
            Ok(GenerationRequest { prompt: self.embedded(&request.prompt)?, ..request.clone() })
        };
        let requests = requests.iter().map(embedded).collect::<Result<Vec<_>>>()?;
        complete(engine, &requests, sampling, activation_cache, on_event)
    }
}
