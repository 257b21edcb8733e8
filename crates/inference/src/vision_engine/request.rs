//! A conversation with images as a request to the engine.

use std::sync::Arc;

use embodied_r_policy::{Prompt, SamplingParams, SamplingSettings};

use crate::model::Model;
use crate::worker::PromptRequest;

/// A request for one completion.
pub(super) fn one_completion(
    model: &Model,
    sampling: SamplingSettings,
    prompt: Prompt,
    max_tokens: usize,
    stream: u64,
) -> PromptRequest {
    let stop_ids = model.tokenizer.stop_ids().to_vec();
    let open = SamplingParams { max_new_tokens: max_tokens, stop_ids, ..SamplingParams::default() };
    PromptRequest::new(prompt, 1, stream, &Arc::new(sampling.applied_to(open)))
}
