//! What an engine core steps: an engine, or this rank's part of one.

use std::sync::Arc;

use embodied_r_policy::{
    Engine, EngineOutput, EngineStats, GenerationRequest, Prompt, RequestId, SamplingParams,
};

use crate::error::Result;

/// Completes prompts, step by step.
pub trait Worker: Send + 'static {
    /// A prompt with its sampling parameters.
    type Request: Send + 'static;

    /// Whether an error is the last: the engine then serves no further requests.
    const ERRORS_ARE_FINAL: bool = false;

    /// The number of completions of a request.
    fn samples(request: &Self::Request) -> usize;

    /// Cancels samples of requests, and adds `requests`, each of which may be rejected.
    ///
    /// # Errors
    /// The engine has failed.
    fn submit(
        &mut self,
        requests: Vec<Self::Request>,
        cancelled: &[(RequestId, usize)],
    ) -> Result<Vec<Result<RequestId>>>;

    /// The engine's next step.
    ///
    /// # Errors
    /// As [`Self::submit`].
    fn step(&mut self) -> Result<Vec<EngineOutput>>;

    /// The engine's statistics.
    fn stats(&self) -> EngineStats;

    /// Called every second while there are no requests, until a final error.
    fn idle(&self) {}

    /// Called on shutdown, unless a final error has ended the engine.
    ///
    /// # Errors
    /// The shutdown cannot be broadcast to the other ranks.
    fn end(self) -> Result<()>
    where
        Self: Sized,
    {
        Ok(())
    }
}

/// A request to an engine on one rank.
#[derive(Debug, Clone)]
pub struct PromptRequest {
    /// The prompt, the number of its completions, and their random stream.
    pub request: GenerationRequest,
    /// The sampling parameters.
    pub sampling: Arc<SamplingParams>,
}

impl PromptRequest {
    /// A request for `samples` completions of `prompt`, whose random numbers are those of `stream`.
    pub fn new(
        prompt: Prompt,
        samples: usize,
        stream: u64,
        sampling: &Arc<SamplingParams>,
    ) -> Self {
        let request = GenerationRequest { prompt, samples, stream, first_sample: 0 };
        Self { request, sampling: sampling.clone() }
    }
}

impl Worker for Engine {
    type Request = PromptRequest;

    fn samples(request: &PromptRequest) -> usize {
        request.request.samples
    }

    fn submit(
        &mut self,
        requests: Vec<PromptRequest>,
        cancelled: &[(RequestId, usize)],
    ) -> Result<Vec<Result<RequestId>>> {
        cancelled.iter().for_each(|(request, sample)| self.cancel_sample(*request, *sample));
        let add = |PromptRequest { request, sampling }| Ok(self.add(&request, &sampling)?);
        Ok(requests.into_iter().map(add).collect())
    }

    fn step(&mut self) -> Result<Vec<EngineOutput>> {
        Ok(Engine::step(self)?)
    }

    fn stats(&self) -> EngineStats {
        Engine::stats(self)
    }
}
