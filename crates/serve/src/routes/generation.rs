//! From the engine's events to a response: whole, or as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::sse::{Event as ServerSent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use embodied_r_policy::{FinishReason, SampledToken};
use serde_json::Value;

use super::App;
use crate::budget::Reserved;
use crate::choice::{Choice, Piece};
use crate::driver::{Event, Running};
use crate::metrics::{Metrics, Outcome};
use crate::refusal::Refusal;
use crate::request::{Include, ResponseMode, Settings};
use crate::response::{Envelope, Usage};

/// The interval of keep-alive comments, so that no proxy closes an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Memory of a log-probability in a whole response, as JSON.
const LOGPROB_BYTES: u64 = 1 << 10;

/// A response in progress. If it is dropped before its end, the client has disconnected.
pub(super) struct ResponseBuilder {
    app: Arc<App>,
    running: Running,
    choices: Vec<Choice>,
    open: usize,
    envelope: Envelope,
    prompt_tokens: usize,
    mode: ResponseMode,
    outcome: Counted,
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
    /// The response to `prompts` prompts of `prompt_tokens` tokens in total.
    pub(super) fn new(
        app: &Arc<App>,
        running: Running,
        settings: Settings,
        envelope: Envelope,
        prompt_tokens: usize,
        prompts: usize,
    ) -> Self {
        let (open, mode) = (prompts * settings.n, settings.response_mode);
        let settings = Arc::new(settings);
        let choice = |_| Choice::new(&app.model.tokenizer, &settings);
        let outcome = Counted { metrics: app.metrics.clone(), outcome: Some(Outcome::Cancelled) };
        let choices = (0..open).map(choice).collect();
        let app = app.clone();
        Self { app, running, choices, open, envelope, prompt_tokens, mode, outcome }
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
        let (mut memory, mut logprobs) = (Reserved::default(), 0);
        while self.open > 0 {
            let event = self.running.next().await;
            let Some((index, piece)) = self.take(event).map_err(|refusal| self.fail(refusal))?
            else {
                continue;
            };
            logprobs += piece.logprobs.iter().map(|token| 1 + token.top.len() as u64).sum::<u64>();
            if !self.app.request_memory.grow(&mut memory, logprobs * LOGPROB_BYTES) {
                return Err(self.fail(Refusal::out_of_request_memory()));
            }
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
        let first = match self.running.next().await {
            Event::Failed(refusal) => return Err(self.fail(refusal)),
            first => first,
        };
        let openings = (0..self.choices.len()).filter_map(|index| self.envelope.opening(index));
        let queue = openings.collect();
        let source =
            Source { response: self, include, first: Some(first), queue, state: State::Open };
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

    /// The choice of the event and its delta.
    fn take(&mut self, event: Event) -> Result<Option<(usize, Piece)>, Refusal> {
        match event {
            Event::Token { choice, token } => self.token(choice, token),
            Event::Finished { choice, finish } => self.finish(choice, finish),
            Event::Failed(refusal) => Err(refusal),
        }
    }

    fn token(
        &mut self,
        index: usize,
        token: SampledToken,
    ) -> Result<Option<(usize, Piece)>, Refusal> {
        let Some(choice) = self.choices.get_mut(index).filter(|choice| !choice.has_ended()) else {
            return Ok(None);
        };
        let piece = choice.take(token).map_err(Refusal::failed)?;
        if piece.end.is_some() {
            self.open -= 1;
            self.running.cancel(index);
        }
        Ok((piece != Piece::default()).then_some((index, piece)))
    }

    fn finish(
        &mut self,
        index: usize,
        finish: FinishReason,
    ) -> Result<Option<(usize, Piece)>, Refusal> {
        let Some(choice) = self.choices.get_mut(index) else { return Ok(None) };
        let piece = choice.finish(finish).map_err(Refusal::failed)?;
        if piece.is_some() {
            self.open -= 1;
        }
        Ok(piece.map(|piece| (index, piece)))
    }

    fn usage(&self) -> Usage {
        let completion = self.choices.iter().map(Choice::tokens).sum();
        Usage { prompt: self.prompt_tokens, completion }
    }
}

/// The events of a stream, in order.
struct Source {
    response: ResponseBuilder,
    include: Include,
    first: Option<Event>,
    queue: VecDeque<Value>,
    state: State,
}

enum State {
    Open,
    /// Everything is sent but `[DONE]`.
    Finished,
    Closed,
}

impl Source {
    async fn next(&mut self) -> Option<ServerSent> {
        loop {
            if let Some(value) = self.queue.pop_front() {
                return Some(ServerSent::default().data(value.to_string()));
            }
            match self.state {
                State::Open => {}
                State::Finished => {
                    self.state = State::Closed;
                    return Some(ServerSent::default().data("[DONE]"));
                }
                State::Closed => return None,
            }
            let event = match self.first.take() {
                Some(first) => first,
                None => self.response.running.next().await,
            };
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match self.response.take(event) {
            Ok(Some((index, piece))) => {
                let mut delta = self.response.envelope.delta(index, &piece);
                if self.include == Include::Usage {
                    delta["usage"] = Value::Null;
                }
                self.queue.push_back(delta);
            }
            Ok(None) => {}
            Err(refusal) => {
                self.response.outcome.outcome = Some(refusal.outcome());
                self.queue.push_back(refusal.json());
                self.state = State::Finished;
                return;
            }
        }
        if self.response.open == 0 {
            self.response.outcome.outcome = Some(Outcome::Completed);
            if self.include == Include::Usage {
                self.queue.push_back(self.response.envelope.usage(self.response.usage()));
            }
            self.state = State::Finished;
        }
    }
}
