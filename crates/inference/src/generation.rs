//! The events of a generation: from the engine to who reads them.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use embodied_r_policy::{FinishReason, SampledToken, TokenLogprobs};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::error::{Error, Result};

/// An event of a generation. Choice `i` is the completion `i`, counted over all samples of all prompts in order.
#[derive(Debug)]
pub enum Event {
    /// A prompt is computed.
    Prefilled {
        /// Its index.
        prompt: usize,
        /// Its tokens that were found in the prefix cache.
        cached_tokens: usize,
        /// Of its tokens after the first, if they were requested.
        logprobs: Option<Vec<TokenLogprobs>>,
    },
    /// A token was sampled.
    Token {
        /// The index of its choice.
        choice: usize,
        /// The token.
        token: SampledToken,
        /// When.
        sampled_at: Instant,
    },
    /// A choice is finished.
    Finished {
        /// Its index.
        choice: usize,
        /// Why it finished.
        finish: FinishReason,
    },
}

impl Event {
    /// The bytes that count towards the backlog. The log-probabilities of a prompt do not: they come at once.
    fn size(&self) -> usize {
        let Self::Token { token, .. } = self else { return 0 };
        let top = token.logprobs.as_ref().map_or(0, |logprobs| logprobs.top_logprobs.len());
        size_of::<Self>() + top * size_of::<(u32, f32)>()
    }
}

/// What a generation is to respect besides its requests.
#[derive(Clone)]
pub struct GenerationOptions {
    /// Bytes of tokens that may wait to be read; beyond, the generation ends with [`Error::SlowReader`].
    pub max_backlog_bytes: usize,
    /// Dropped before the last event of the requests is sent; a cancelled request leaves the engine by the next step.
    pub permit: Option<Arc<dyn Any + Send + Sync>>,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self { max_backlog_bytes: usize::MAX, permit: None }
    }
}

/// Requests in the engine; dropping it cancels them.
#[derive(Debug)]
pub struct Generation {
    events: UnboundedReceiver<Result<Event>>,
    first: Option<Event>,
    shared: Arc<Shared>,
}

/// What both ends of a generation know.
#[derive(Debug)]
struct Shared {
    /// Bytes of the events in the channel.
    backlog: AtomicUsize,
    /// Whether each choice is cancelled.
    cancelled: Vec<AtomicBool>,
}

impl Shared {
    /// Takes an event that has left the channel off the backlog.
    fn received(&self, event: Result<Event>) -> Result<Event> {
        event.inspect(|event| {
            self.backlog.fetch_sub(event.size(), Ordering::Relaxed);
        })
    }
}

impl Generation {
    /// Waits for the first event, which [`Self::next`] then returns: the prefill of the first prompt that is computed.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn started(&mut self) -> Result<()> {
        self.first = Some(self.next().await?);
        Ok(())
    }

    /// The next event.
    ///
    /// # Errors
    /// The engine rejects a prompt, its step fails, or logits are not finite; [`Error::Aborted`], [`Error::SlowReader`],
    /// [`Error::EngineStopped`].
    pub async fn next(&mut self) -> Result<Event> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let event = self.events.recv().await;
        self.shared.received(event.unwrap_or(Err(Error::EngineStopped)))
    }

    /// The next event, if it is there already.
    pub(crate) fn try_next(&mut self) -> Option<Result<Event>> {
        let event = self.events.try_recv().ok()?;
        Some(self.shared.received(event))
    }

    /// Cancels one choice at the next step.
    pub fn cancel(&self, choice: usize) {
        if let Some(cancelled) = self.shared.cancelled.get(choice) {
            cancelled.store(true, Ordering::Relaxed);
        }
    }
}

/// The engine's end of a generation.
#[derive(Clone)]
pub(crate) struct EventSender {
    events: UnboundedSender<Result<Event>>,
    options: GenerationOptions,
    shared: Arc<Shared>,
}

impl EventSender {
    /// Both ends of a generation of so many choices.
    pub(crate) fn new(choices: usize, options: GenerationOptions) -> (Self, Generation) {
        let (sender, events) = unbounded_channel();
        let cancelled = (0..choices).map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(Shared { backlog: AtomicUsize::new(0), cancelled });
        (
            Self { events: sender, options, shared: shared.clone() },
            Generation { events, first: None, shared },
        )
    }

    /// Whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the reader is gone, or has cancelled this choice.
    pub(crate) fn is_cancelled(&self, choice: usize) -> bool {
        self.is_closed()
            || self.shared.cancelled.get(choice).is_some_and(|it| it.load(Ordering::Relaxed))
    }

    /// Sends an event; false if too many wait to be read.
    pub(crate) fn send(&self, event: Event) -> bool {
        let size = event.size();
        let backlog = self.shared.backlog.fetch_add(size, Ordering::Relaxed) + size;
        let fits = backlog <= self.options.max_backlog_bytes;
        if fits {
            // A reader that is gone is noticed before the next step.
            let _ = self.events.send(Ok(event));
        }
        fits
    }

    /// Releases the permit, and sends the last event of a request.
    pub(crate) fn send_last(self, event: Result<Event>) {
        drop(self.options);
        let _ = self.events.send(event);
    }
}
