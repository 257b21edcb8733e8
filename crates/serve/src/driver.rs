//! The engine thread.
//!
//! It steps the engine while there is work and sleeps on its channel otherwise. Tokens go to each request's own
//! channel; a request whose channel is closed is cancelled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Instant;

use embodied_r_policy::{
    Engine, EngineOutput, FinishReason, GenerationRequest, Prompt, RequestId, SampledToken,
    SamplingParams, TokenLogprobs,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::admission::Permit;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::refusal::Refusal;

/// Bytes of events that may wait for a client. A stream that is read more slowly than it is generated ends here.
const MAX_BACKLOG_BYTES: usize = 1 << 20;

/// An event of a request.
#[derive(Debug)]
pub(crate) enum Event {
    /// A prompt is computed.
    Prefilled { prompt: usize, cached_tokens: usize, logprobs: Option<Vec<TokenLogprobs>> },
    /// A token was generated.
    Token { choice: usize, token: SampledToken },
    /// A choice is finished.
    Finished { choice: usize, finish: FinishReason },
    /// The request failed.
    Failed(Refusal),
}

impl Event {
    /// The bytes that count towards the backlog. The log-probabilities of a prompt do not: they come at once, and the
    /// request has reserved their memory.
    fn size(&self) -> usize {
        let logprobs = match self {
            Self::Token { token, .. } => token.logprobs.as_ref(),
            _ => None,
        };
        let top = logprobs.map_or(0, |logprobs| logprobs.top_logprobs.len());
        size_of::<Self>() + top * size_of::<(u32, f32)>()
    }
}

/// Submits requests to the engine thread.
#[derive(Debug)]
pub(crate) struct Driver {
    commands: Sender<Command>,
    tickets: AtomicU64,
}

enum Command {
    Add(Box<Submission>),
    CancelSample { ticket: u64, sample: usize },
    Abort,
}

struct Submission {
    ticket: u64,
    request: GenerationRequest,
    sampling: Arc<SamplingParams>,
    arrived: Instant,
    first_choice: usize,
    permit: Permit,
    events: UnboundedSender<Event>,
    backlog: Arc<AtomicUsize>,
}

/// A submitted request; dropping it cancels the request.
#[derive(Debug)]
pub(crate) struct Running {
    events: UnboundedReceiver<Event>,
    /// Bytes of the events in the channel.
    backlog: Arc<AtomicUsize>,
    commands: Sender<Command>,
    /// The ticket of each prompt, each with `samples` choices.
    tickets: Vec<u64>,
    samples: usize,
}

impl Driver {
    /// Starts the engine thread. The receiver closes when it exits.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub(crate) fn start(
        engine: Engine,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, oneshot::Receiver<()>)> {
        let (commands, receiver) = mpsc::channel();
        let (alive, ended) = oneshot::channel();
        let work = EngineThread { engine, commands: receiver, metrics, live: HashMap::new() };
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                let _alive: oneshot::Sender<()> = alive;
                work.run();
            })
            .map_err(Error::Thread)?;
        Ok((Self { commands, tickets: AtomicU64::new(0) }, ended))
    }

    /// Submits prompts with `samples` completions each: choice `i * samples + j` is sample `j` of prompt `i`.
    pub(crate) fn submit(
        &self,
        prompts: Vec<Prompt>,
        samplings: Vec<Arc<SamplingParams>>,
        samples: usize,
        stream: u64,
        arrived: Instant,
        permit: &Permit,
    ) -> Running {
        let (sender, events) = unbounded_channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let mut tickets = Vec::with_capacity(prompts.len());
        for (index, (prompt, sampling)) in prompts.into_iter().zip(samplings).enumerate() {
            let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
            tickets.push(ticket);
            let submission = Submission {
                ticket,
                request: GenerationRequest { prompt, samples, stream, first_sample: 0 },
                sampling,
                arrived,
                first_choice: index * samples,
                permit: permit.clone(),
                events: sender.clone(),
                backlog: backlog.clone(),
            };
            // If the thread has exited, the closed event channel reports it.
            let _ = self.commands.send(Command::Add(Box::new(submission)));
        }
        Running { events, backlog, commands: self.commands.clone(), tickets, samples }
    }

    /// Cancels all requests.
    pub(crate) fn abort(&self) {
        let _ = self.commands.send(Command::Abort);
    }
}

impl Running {
    /// The next event.
    pub(crate) async fn next(&mut self) -> Event {
        let gone = || Event::Failed(Refusal::failed("the engine has stopped"));
        let event = self.events.recv().await.unwrap_or_else(gone);
        if let Event::Token { .. } = event {
            self.backlog.fetch_sub(event.size(), Ordering::Relaxed);
        }
        event
    }

    /// Cancels one choice.
    pub(crate) fn cancel(&self, choice: usize) {
        let sample = choice % self.samples;
        if let Some(&ticket) = self.tickets.get(choice / self.samples) {
            let _ = self.commands.send(Command::CancelSample { ticket, sample });
        }
    }
}

/// The state of the engine thread.
struct EngineThread {
    engine: Engine,
    commands: Receiver<Command>,
    metrics: Arc<Metrics>,
    live: HashMap<RequestId, Live>,
}

/// A request in the engine.
struct Live {
    ticket: u64,
    first_choice: usize,
    /// The time of each sample's last token (initially the request's arrival); `None` once the sample has ended.
    last: Vec<Option<Instant>>,
    has_tokens: Vec<bool>,
    /// The index of the prompt, until it is computed.
    prompt: Option<usize>,
    events: UnboundedSender<Event>,
    backlog: Arc<AtomicUsize>,
    _permit: Permit,
}

impl EngineThread {
    fn run(mut self) {
        loop {
            match self.next_command() {
                Ok(Some(command)) => {
                    self.apply(command);
                    continue;
                }
                Ok(None) => {}
                // The server is gone.
                Err(()) => return,
            }
            self.cancel_abandoned();
            if !self.engine.has_work() {
                continue;
            }
            let outputs = self.engine.step();
            // Before the outputs: a client may ask for the metrics as soon as it has its response.
            self.metrics.engine(&self.engine.stats());
            match outputs {
                Ok(outputs) => outputs.into_iter().for_each(|output| self.deliver(output)),
                Err(error) => {
                    tracing::error!(%error, "the engine step failed, all requests are aborted");
                    self.end_all(&Refusal::failed(error));
                }
            }
        }
    }

    /// The next command; blocks if the engine has no work.
    fn next_command(&mut self) -> Result<Option<Command>, ()> {
        if !self.engine.has_work() {
            self.metrics.engine(&self.engine.stats());
            return self.commands.recv().map(Some).map_err(drop);
        }
        match self.commands.try_recv() {
            Ok(command) => Ok(Some(command)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(()),
        }
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Add(submission) => self.add(*submission),
            Command::CancelSample { ticket, sample } => {
                let found = self.live.iter().find(|(_, live)| live.ticket == ticket);
                if let Some(id) = found.map(|(id, _)| *id) {
                    self.engine.cancel_sample(id, sample);
                    self.end_sample(id, sample);
                }
            }
            Command::Abort => self.end_all(&Refusal::stopping()),
        }
    }

    fn add(&mut self, submission: Submission) {
        let Submission {
            ticket,
            request,
            sampling,
            arrived,
            first_choice,
            permit,
            events,
            backlog,
        } = submission;
        if events.is_closed() {
            return;
        }
        match self.engine.add(&request, &sampling) {
            Ok(id) => {
                let live = Live {
                    ticket,
                    first_choice,
                    last: vec![Some(arrived); request.samples],
                    has_tokens: vec![false; request.samples],
                    prompt: Some(first_choice / request.samples.max(1)),
                    events,
                    backlog,
                    _permit: permit,
                };
                self.live.insert(id, live);
            }
            Err(error) => {
                let _ = events.send(Event::Failed(Refusal::from_policy("prompt", &error)));
            }
        }
    }

    fn deliver(&mut self, output: EngineOutput) {
        match output {
            EngineOutput::Prefilled { request, cached_tokens, logprobs } => {
                let Some(live) = self.live.get_mut(&request) else { return };
                if let Some(prompt) = live.prompt.take() {
                    let _ = live.events.send(Event::Prefilled { prompt, cached_tokens, logprobs });
                }
            }
            EngineOutput::Token { request, sample, token } => {
                let Some(live) = self.live.get_mut(&request) else { return };
                let Some(last) = live.last[sample] else { return };
                let now = Instant::now();
                match std::mem::replace(&mut live.has_tokens[sample], true) {
                    true => self.metrics.next_token(now - last),
                    false => self.metrics.first_token(now - last),
                }
                live.last[sample] = Some(now);
                let event = Event::Token { choice: live.first_choice + sample, token };
                let size = event.size();
                if live.backlog.fetch_add(size, Ordering::Relaxed) + size > MAX_BACKLOG_BYTES {
                    let _ = live.events.send(Event::Failed(Refusal::slow_reader()));
                    self.engine.cancel(request);
                    self.live.remove(&request);
                    return;
                }
                let _ = live.events.send(event);
            }
            EngineOutput::Finished { request, sample, finish_reason: finish } => {
                let Some(live) = self.live.get(&request) else { return };
                let events = live.last[sample].map(|_| live.events.clone());
                let choice = live.first_choice + sample;
                // Frees the slot before the client is notified and may send its next request.
                self.end_sample(request, sample);
                if let Some(events) = events {
                    let _ = events.send(Event::Finished { choice, finish });
                }
            }
            EngineOutput::NonFinite { request, .. } => {
                let Some(live) = self.live.remove(&request) else { return };
                self.engine.cancel(request);
                let refusal = Refusal::failed(embodied_r_policy::Error::NonFiniteLogits);
                let _ = live.events.send(Event::Failed(refusal));
            }
        }
    }

    /// Removes a sample, and its request after the last one.
    fn end_sample(&mut self, id: RequestId, sample: usize) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if let Some(last) = live.last.get_mut(sample) {
            *last = None;
        }
        if live.last.iter().all(Option::is_none) {
            self.live.remove(&id);
        }
    }

    /// Cancels requests whose client has disconnected.
    fn cancel_abandoned(&mut self) {
        let engine = &mut self.engine;
        self.live.retain(|id, live| {
            let abandoned = live.events.is_closed();
            if abandoned {
                engine.cancel(*id);
            }
            !abandoned
        });
    }

    fn end_all(&mut self, refusal: &Refusal) {
        for (id, live) in self.live.drain() {
            self.engine.cancel(id);
            let _ = live.events.send(Event::Failed(refusal.clone()));
        }
    }
}
