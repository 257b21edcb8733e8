//! An engine on the thread of its caller.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{Engine, EngineOptions, Prompt};

use crate::completion::Completion;
use crate::engine_core::{EngineClient, EngineCore};
use crate::error::Result;
use crate::generation::{Event, Generation, GenerationOptions};
use crate::model::Model;
use crate::worker::PromptRequest;

/// An engine on the thread of its caller, who waits for completions. It keeps the prefix cache between calls.
pub struct BlockingEngine {
    client: EngineClient<Engine>,
    core: EngineCore<Engine>,
    tokenizer: Arc<Tokenizer>,
}

impl BlockingEngine {
    /// An engine for `model`.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn new(model: &Model, options: EngineOptions) -> Result<Self> {
        let (client, core) = EngineCore::new(Engine::new(model.decoder.clone(), options)?);
        Ok(Self { client, core, tokenizer: model.tokenizer.clone() })
    }

    /// Completes all prompts and returns the completions, those of the first prompt first. Calls `on_step` after each step
    /// with the completions so far; if it breaks, they are returned unfinished.
    ///
    /// # Errors
    /// The engine rejects a prompt, a step fails, logits are not finite, or the tokenizer rejects a token.
    pub fn complete(
        &mut self,
        requests: Vec<PromptRequest>,
        on_step: impl FnMut(&[Completion]) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>> {
        self.complete_embedded(requests, usize::MAX, Ok, on_step)
    }

    /// As [`Self::complete`] for prompts whose images have no embeddings yet. `embed` adds them to a prompt when it is
    /// submitted, and no more prompts are in the engine at once than have `max_tokens` tokens together, or a single one: only
    /// these hold embeddings.
    ///
    /// # Errors
    /// As [`Self::complete`], and those of `embed`.
    pub fn complete_embedded(
        &mut self,
        requests: Vec<PromptRequest>,
        max_tokens: usize,
        mut embed: impl FnMut(Prompt) -> Result<Prompt>,
        mut on_step: impl FnMut(&[Completion]) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>> {
        let completion = |request: &PromptRequest| {
            let stop_ids = &request.sampling.stop_ids;
            let new = || Completion::new(&self.tokenizer, stop_ids);
            std::iter::repeat_with(new).take(request.request.samples).collect::<Vec<_>>()
        };
        let mut completions: Vec<Completion> = requests.iter().flat_map(completion).collect();
        let mut waiting = requests.into_iter().peekable();
        let (mut running, mut submitted) = (Vec::<Running>::new(), 0);
        while completions.iter().any(|completion| completion.finish.is_none()) {
            let mut tokens: usize = running.iter().map(|request| request.tokens).sum();
            let fits = |tokens: usize, request: &PromptRequest| {
                tokens == 0 || tokens.saturating_add(request.request.prompt.len()) <= max_tokens
            };
            while let Some(mut request) = waiting.next_if(|request| fits(tokens, request)) {
                let (length, samples) = (request.request.prompt.len(), request.request.samples);
                request.request.prompt = embed(std::mem::take(&mut request.request.prompt))?;
                let generation = self.client.submit(vec![request], GenerationOptions::default());
                let choices = submitted..submitted + samples;
                running.push(Running { generation, choices, tokens: length });
                (tokens, submitted) = (tokens.saturating_add(length), submitted + samples);
            }
            self.core.step_pending();
            for Running { generation, choices, .. } in &mut running {
                while let Some(event) = generation.try_next() {
                    match event? {
                        event @ (Event::Token { choice, .. } | Event::Finished { choice, .. }) => {
                            completions[choices.start + choice].take(event)?;
                        }
                        Event::Prefilled { .. } => {}
                    }
                }
            }
            running.retain(|request| {
                completions[request.choices.clone()].iter().any(|of| of.finish.is_none())
            });
            if on_step(&completions).is_break() {
                let unfinished = completions.iter_mut().filter(|it| it.finish.is_none());
                unfinished.into_iter().try_for_each(Completion::end)?;
                break;
            }
        }
        Ok(completions)
    }
}

/// A request in the engine.
struct Running {
    generation: Generation,
    /// Its completions among all.
    choices: Range<usize>,
    /// Tokens of its prompt.
    tokens: usize,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use embodied_r_policy::tokenizer::SpecialTokens;
    use embodied_r_policy::{
        FinishReason, GenerationRequest, SamplingParams, WeightFormat, WeightPlacement,
    };

    use super::*;
    use crate::error::Error;

    fn model() -> Model {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../vision/tests/fixtures/flat");
        Model::load(Path::new(folder), WeightPlacement::from(WeightFormat::F32)).unwrap()
    }

    /// Requests for three completions each, with sampling parameters with which some reach a stop token.
    fn requests(model: &Model) -> Vec<PromptRequest> {
        let stop_ids = (0..model.decoder.config().vocab_size as u32).step_by(16).collect();
        let sampling = SamplingParams { max_new_tokens: 12, stop_ids, ..SamplingParams::default() };
        let sampling = Arc::new(sampling);
        let request = |stream: u64| {
            let prompt = vec![5, 6, stream as u32].into();
            PromptRequest::new(prompt, 3, stream, &sampling)
        };
        (7..11).map(request).collect()
    }

    #[test]
    fn a_completion_is_the_decoded_tokens_of_its_sample_without_the_stop_token() {
        let model = model();
        let requests = requests(&model);
        let sampling = requests[0].sampling.clone();
        let plain: Vec<GenerationRequest> = requests.iter().map(|it| it.request.clone()).collect();
        let expected = model.decoder.generate(&plain, &sampling, &|_| {}).unwrap();
        let mut engine = BlockingEngine::new(&model, EngineOptions::default()).unwrap();
        let found = engine.complete(requests, |_| ControlFlow::Continue(())).unwrap();
        let mut stopped = 0;
        for (found, expected) in found.iter().zip(expected.iter().flatten()) {
            let is_stopped = expected.finish_reason == FinishReason::Stop;
            stopped += usize::from(is_stopped);
            let text = &expected.ids[..expected.ids.len() - usize::from(is_stopped)];
            assert_eq!(found.text, model.tokenizer.decode(text, SpecialTokens::Skip).unwrap());
            assert_eq!(found.tokens, expected.ids.len());
            assert_eq!(found.finish, Some(expected.finish_reason));
        }
        assert!(found.len() == 12 && (1..12).contains(&stopped), "{stopped} of {}", found.len());
    }

    #[test]
    fn a_break_returns_unfinished_completions_and_the_next_call_is_not_affected() {
        let model = model();
        let mut engine = BlockingEngine::new(&model, EngineOptions::default()).unwrap();
        let broken = engine.complete(requests(&model), |_| ControlFlow::Break(())).unwrap();
        assert!(broken.iter().all(|completion| completion.tokens == 1));
        assert!(broken.iter().any(|completion| completion.finish.is_none()));
        let texts = |completions: Vec<Completion>| -> Vec<String> {
            completions.into_iter().map(|completion| completion.text).collect()
        };
        assert!(engine.client.stats().running > 0);
        let found = engine.complete(requests(&model), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(engine.client.stats().running, 0, "the requests that were broken off are gone");
        let mut engine = BlockingEngine::new(&model, EngineOptions::default()).unwrap();
        let expected = engine.complete(requests(&model), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(texts(found), texts(expected));
    }

    #[test]
    fn prompts_are_embedded_in_turn_and_completed_as_all_at_once() {
        let model = model();
        let mut engine = BlockingEngine::new(&model, EngineOptions::default()).unwrap();
        let expected = engine.complete(requests(&model), |_| ControlFlow::Continue(())).unwrap();
        // Of the four prompts of three tokens two fit, or with less than one prompt's tokens one.
        for (max_tokens, most) in [(7, 2), (1, 1)] {
            let embedded = std::cell::Cell::new(0usize);
            let mut unfinished = 0;
            let found = engine.complete_embedded(
                requests(&model),
                max_tokens,
                |prompt| {
                    embedded.set(embedded.get() + 1);
                    Ok(prompt)
                },
                |completions| {
                    let groups = completions.chunks(3).take(embedded.get());
                    let open = |of: &&[Completion]| {
                        of.iter().any(|it| it.tokens > 0 && it.finish.is_none())
                    };
                    unfinished = unfinished.max(groups.filter(open).count());
                    ControlFlow::Continue(())
                },
            );
            assert_eq!(texts_of(&found.unwrap()), texts_of(&expected), "{max_tokens}");
            assert_eq!((embedded.get(), unfinished), (4, most));
        }
    }

    fn texts_of(completions: &[Completion]) -> Vec<String> {
        completions.iter().map(|completion| completion.text.clone()).collect()
    }

    #[test]
    fn a_prompt_that_cannot_be_embedded_ends_the_call() {
        let model = model();
        let mut engine = BlockingEngine::new(&model, EngineOptions::default()).unwrap();
        let refused = engine.complete_embedded(
            requests(&model),
            1,
            |prompt| match prompt.ids()[2] {
                8 => Err(Error::Aborted),
                _ => Ok(prompt),
            },
            |_| ControlFlow::Continue(()),
        );
        assert!(matches!(refused, Err(Error::Aborted)));
        engine.complete(requests(&model), |_| ControlFlow::Continue(())).unwrap();
    }
}
