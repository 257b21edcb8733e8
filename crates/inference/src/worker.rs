//! What an engine thread runs: an engine, or this rank's part of one.

use std::sync::Arc;

use embodied_r_policy::{
    Engine, EngineOutput, EngineStats, GenerationRequest, RequestId, SamplingParams,
};

use crate::error::Result;

/// Completes prompts, step by step.
pub trait Worker: Send + 'static {
    /// A prompt with its sampling parameters.
    type Request: Send + 'static;

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

    /// Called every second while there are no requests.
    fn idle(&self) {}

    /// Called on shutdown.
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
