//! From the engine's events to a response: whole, or as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::response::sse::{Event as ServerSent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use embodied_r_inference::{Event, Generation};
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{FinishReason, Prompt, SampledToken, TokenLogprobs};
use serde_json::Value;

use super::logprobs::LogprobMemory;
use crate::app::App;
use crate::choice::{Choice, Piece, PromptLogprobs};
use crate::metrics::{Metrics, Outcome};
use crate::refusal::Refusal;
use crate::request::{Include, ResponseMode, Settings};
use crate::response::{Envelope, Usage};

/// The interval of keep-alive comments, so that no proxy closes an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A response in progress. If it is dropped before its end, the client has disconnected.
pub(super) struct ResponseBuilder {
    app: Arc<App>,
    generation: Generation,
    choices: Vec<Choice>,
    arrived: Instant,
    /// When the last token of each choice was sampled.
    last_tokens: Vec<Option<Instant>>,
    open: usize,
    envelope: Envelope,
    tokenizer: Arc<Tokenizer>,
    /// The ids of the prompts whose log-probabilities are requested.
    prompts: Vec<Vec<u32>>,
    prompt_tokens: usize,
    cached_tokens: usize,
    mode: ResponseMode,
    memory: LogprobMemory,
    outcome: Counted,
}

/// What an event adds to a response.
enum Update {
    /// The log-probabilities of a prompt.
    Prompt(usize, PromptLogprobs),
    /// A delta of a choice.
    Piece(usize, Piece),
}

/// The prompts of a request, for its response.
pub(super) struct Prompts {
    count: usize,
    tokens: usize,
    /// Their ids, if their log-probabilities are requested.
    ids: Vec<Vec<u32>>,
    /// The memory of these log-probabilities.
    memory: LogprobMemory,
}

impl Prompts {
    /// What the response to `prompts` with these settings needs of them; `memory` is that of their log-probabilities.
    pub(super) fn new(prompts: &[Prompt], settings: &Settings, memory: LogprobMemory) -> Self {
        let ids = prompts.iter().map(|prompt| prompt.ids().to_vec());
        Self {
            count: prompts.len(),
            tokens: prompts.iter().map(Prompt::len).sum(),
            ids: settings.sampling.prompt_logprobs.map(|_| ids.collect()).unwrap_or_default(),
            memory,
        }
    }
}

/// Counts a request when it is dropped, unless its outcome is counted elsewhere.
struct Counted {
    metrics: Arc<Metrics>,
    outcome: Option<Outcome>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.metrics.ended(outcome);
        }
    }
}

impl ResponseBuilder {
    /// The response to these prompts.
    pub(super) fn new(
        app: &Arc<App>,
        (generation, arrived): (Generation, Instant),
        settings: Settings,
        envelope: Envelope,
        prompts: Prompts,
    ) -> Self {
        let Prompts { count, tokens: prompt_tokens, ids: prompts, memory } = prompts;
        let (open, mode) = (count * settings.n, settings.response_mode);
        let tokenizer = app.model.tokenizer.clone();
        let settings = Arc::new(settings);
        let choice = |_| Choice::new(&app.model.tokenizer, &settings);
        let outcome = Counted { metrics: app.metrics.clone(), outcome: Some(Outcome::Cancelled) };
        let choices = (0..open).map(choice).collect();
        let app = app.clone();
        Self {
            app,
            generation,
            choices,
            arrived,
            last_tokens: vec![None; open],
            open,
            envelope,
            tokenizer,
            prompts,
            prompt_tokens,
            cached_tokens: 0,
            mode,
            memory,
            outcome,
        }
    }

    /// The HTTP response: whole, or a stream once the first event arrives.
    ///
    /// # Errors
    /// The request failed.
    pub(super) async fn send(self) -> Result<Response, Refusal> {
        match self.mode {
            ResponseMode::Whole => self.whole().await,
            ResponseMode::Stream(include) => self.stream(include).await,
        }
    }

    async fn whole(mut self) -> Result<Response, Refusal> {
        let mut choices: Vec<Piece> = self.choices.iter().map(|_| Piece::default()).collect();
        while self.open > 0 {
            let event = self.next().await;
            let update = event.and_then(|event| self.take(event));
            let (index, piece) = match update.map_err(|refusal| self.fail(refusal))? {
                None => continue,
                Some(Update::Prompt(index, logprobs)) => {
                    self.envelope.prompt(index, logprobs);
                    continue;
                }
                Some(Update::Piece(index, piece)) => (index, piece),
            };
            let reserved = self.memory.add(&self.app.request_memory, &piece.logprobs);
            reserved.map_err(|refusal| self.fail(refusal))?;
            let choice = &mut choices[index];
            choice.text.push_str(&piece.text);
            choice.logprobs.extend(piece.logprobs);
            choice.end = piece.end;
        }
        self.outcome.outcome = Some(Outcome::Completed);
        Ok(Json(self.envelope.whole(&choices, self.usage())).into_response())
    }

    async fn stream(mut self, include: Include) -> Result<Response, Refusal> {
        // A request that the engine refuses immediately still gets its own status.
        let started = self.generation.started().await;
        started.map_err(|error| self.fail(Refusal::from_engine(error)))?;
        let opening = self.envelope.opening(self.choices.len());
        let mut source =
            Source { response: self, include, queue: VecDeque::new(), state: State::Open };
        source.push(opening);
        let stream = futures_util::stream::unfold(source, |mut source| async {
            let event = source.next().await?;
            Some((Ok::<_, Infallible>(event), source))
        });
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        Ok(Sse::new(stream).keep_alive(keep_alive).into_response())
    }

    /// Returns the refusal as the response; it is counted there.
    fn fail(&mut self, refusal: Refusal) -> Refusal {
        self.outcome.outcome = None;
        refusal
    }

    /// The next event.
    async fn next(&mut self) -> Result<Event, Refusal> {
        self.generation.next().await.map_err(Refusal::from_engine)
    }

    /// What the event adds.
    fn take(&mut self, event: Event) -> Result<Option<Update>, Refusal> {
        match event {
            Event::Prefilled { prompt, cached_tokens, logprobs } => {
                self.cached_tokens += cached_tokens;
                self.prompt(prompt, logprobs)
            }
            Event::Token { choice, token, sampled_at } => {
                match self.last_tokens[choice].replace(sampled_at) {
                    None => self.app.metrics.first_token(sampled_at - self.arrived),
                    Some(last) => self.app.metrics.next_token(sampled_at - last),
                }
                self.token(choice, token)
            }
            Event::Finished { choice, finish } => self.finish(choice, finish),
        }
    }

    fn prompt(
        &self,
        index: usize,
        logprobs: Option<Vec<TokenLogprobs>>,
    ) -> Result<Option<Update>, Refusal> {
        let Some((ids, logprobs)) = self.prompts.get(index).zip(logprobs) else { return Ok(None) };
        let logprobs = PromptLogprobs::new(&self.tokenizer, ids, &logprobs);
        Ok(Some(Update::Prompt(index, logprobs.map_err(Refusal::failed)?)))
    }

    fn token(&mut self, index: usize, token: SampledToken) -> Result<Option<Update>, Refusal> {
        let Some(choice) = self.choices.get_mut(index).filter(|choice| !choice.has_ended()) else {
            return Ok(None);
        };
        let piece = choice.take(token).map_err(Refusal::failed)?;
        if piece.end.is_some() {
            self.open -= 1;
            self.generation.cancel(index);
        }
        Ok((piece != Piece::default()).then_some(Update::Piece(index, piece)))
    }

    fn finish(&mut self, index: usize, finish: FinishReason) -> Result<Option<Update>, Refusal> {
        let Some(choice) = self.choices.get_mut(index) else { return Ok(None) };
        let piece = choice.finish(finish).map_err(Refusal::failed)?;
        if piece.is_some() {
            self.open -= 1;
        }
        Ok(piece.map(|piece| Update::Piece(index, piece)))
    }

    fn usage(&self) -> Usage {
        let completion = self.choices.iter().map(Choice::tokens).sum();
        Usage { prompt: self.prompt_tokens, completion, cached: self.cached_tokens }
    }
}

/// The events of a stream, in order.
struct Source {
    response: ResponseBuilder,
    include: Include,
    queue: VecDeque<Value>,
    state: State,
}

enum State {
    Open,
    /// Everything is sent but the terminator.
    Finished,
    Closed,
}

impl Source {
    async fn next(&mut self) -> Option<ServerSent> {
        loop {
            if let Some(value) = self.queue.pop_front() {
                let event = match self.response.envelope.event(&value) {
                    Some(name) => ServerSent::default().event(name),
                    None => ServerSent::default(),
                };
                return Some(event.data(value.to_string()));
            }
            match self.state {
                State::Open => {}
                State::Finished => {
                    self.state = State::Closed;
                    let terminator = self.response.envelope.terminator()?;
                    return Some(ServerSent::default().data(terminator));
                }
                State::Closed => return None,
            }
            let event = self.response.next().await;
            self.take(event);
        }
    }

    fn take(&mut self, event: Result<Event, Refusal>) {
        match event.and_then(|event| self.response.take(event)) {
            Ok(Some(Update::Prompt(index, logprobs))) => {
                let chunks = self.response.envelope.prompt(index, logprobs);
                self.push(chunks);
            }
            Ok(Some(Update::Piece(index, piece))) => {
                let chunks = self.response.envelope.delta(index, &piece);
                self.push(chunks);
            }
            Ok(None) => {}
            Err(refusal) => {
                self.response.outcome.outcome = Some(refusal.outcome());
                self.queue.extend(self.response.envelope.failed(&refusal));
                self.state = State::Finished;
                return;
            }
        }
        if self.response.open == 0 {
            self.response.outcome.outcome = Some(Outcome::Completed);
            let usage = self.response.usage();
            self.queue.extend(self.response.envelope.end(usage, self.include));
            self.state = State::Finished;
        }
    }

    fn push(&mut self, chunks: Vec<Value>) {
        let usage = match self.include {
            Include::Nothing => None,
            Include::Usage => Some(Value::Null),
            Include::ContinuousUsage => Some(self.response.usage().json()),
        };
        self.queue.extend(chunks.into_iter().map(|mut chunk| {
            if let Some(usage) = &usage {
                chunk["usage"] = usage.clone();
            }
            chunk
        }));
    }
}
