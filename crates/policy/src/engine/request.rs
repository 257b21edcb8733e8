//! Requests, and how their samples finish.

use serde::{Deserialize, Serialize};

use crate::prompt::Prompt;

/// A prompt and the number of completions to sample.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// The prompt; at least one token.
    pub prompt: Prompt,
    /// Number of completions.
    pub samples: usize,
    /// Seed of this request: random numbers depend on (stream, `first_sample` + sample, position) only.
    pub stream: u64,
    /// Index, in the stream, of the first completion; above 0 for the later part of a group that is split over ranks.
    pub first_sample: usize,
}

/// Why a completion finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// It sampled a stop token.
    Stop,
    /// It reached `max_new_tokens` or the context length.
    Length,
}
