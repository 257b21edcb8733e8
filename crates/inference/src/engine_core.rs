//! The loop around an engine: it adds requests, runs steps, and sends each request's events to its reader.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use embodied_r_policy::{EngineOutput, EngineStats, FinishReason, RequestId};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::generation::{Event, EventSender, Generation, GenerationOptions};
use crate::worker::Worker;

/// Interval of [`Worker::idle`].
const IDLE: Duration = Duration::from_secs(1);

/// Submits requests to an engine; the engine's thread ends when it is dropped.
pub struct EngineClient<W: Worker> {
    commands: Sender<Command<W::Request>>,
    /// Closed when the engine's thread ends.
    stats: watch::Receiver<EngineStats>,
}

enum Command<R> {
    /// Requests with the ends of their generation.
    Add(Vec<(R, Live)>),
    Abort,
}

/// A request in the engine.
struct Live {
    /// The index of its prompt.
    prompt: usize,
    first_choice: usize,
    /// Whether each sample is unfinished.
    open: Vec<bool>,
    is_prefilled: bool,
    events: EventSender,
}

impl<W: Worker> EngineClient<W> {
    /// Submits prompts, whose choices are counted in their order.
    pub fn submit(&self, requests: Vec<W::Request>, options: GenerationOptions) -> Generation {
        let choices = requests.iter().map(W::samples).sum();
        let (events, generation) = EventSender::new(choices, options);
        let mut first_choice = 0;
        let live = |(prompt, request)| {
            let open = vec![true; W::samples(&request)];
            let events = events.clone();
            let live = Live { prompt, first_choice, open, is_prefilled: false, events };
            first_choice += live.open.len();
            (request, live)
        };
        let requests = requests.into_iter().enumerate().map(live).collect();
        // If the thread has ended, the closed channel of the generation reports it.
        let _ = self.commands.send(Command::Add(requests));
        generation
    }

    /// Ends all requests with [`Error::Aborted`].
    pub fn abort(&self) {
        let _ = self.commands.send(Command::Abort);
    }

    /// The engine's statistics after its last step.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        *self.stats.borrow()
    }

    /// Waits until the engine's thread ends, which it does not do by itself unless it panics.
    pub async fn ended(&self) {
        let _ = self.stats.clone().wait_for(|_| false).await;
    }
}

/// An engine with the requests in it.
pub struct EngineCore<W: Worker> {
    worker: W,
    commands: Receiver<Command<W::Request>>,
    stats: watch::Sender<EngineStats>,
    live: HashMap<RequestId, Live>,
    /// Samples that have ended for their readers, but not yet in the engine.
    cancelled: Vec<(RequestId, usize)>,
    /// The final error of the worker.
    failure: Option<Arc<Error>>,
    logs_errors: bool,
}

impl<W: Worker> EngineCore<W> {
    /// An engine without requests, and its client.
    pub fn new(worker: W) -> (EngineClient<W>, Self) {
        let (sender, commands) = mpsc::channel();
        let (stats, stats_receiver) = watch::channel(worker.stats());
        let (live, cancelled) = (HashMap::new(), Vec::new());
        let core =
            Self { worker, commands, stats, live, cancelled, failure: None, logs_errors: false };
        (EngineClient { commands: sender, stats: stats_receiver }, core)
    }

    /// The engine, which also logs the errors of its steps: for readers that do not report them.
    #[must_use]
    pub fn with_error_log(self) -> Self {
        Self { logs_errors: true, ..self }
    }

    /// Runs the engine on a thread of its own until the client is dropped.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn spawn(mut self) -> Result<JoinHandle<()>> {
        let run = move || {
            while let Some(commands) = self.receive() {
                self.step(commands);
            }
            if self.failure.is_none()
                && let Err(error) = self.worker.end()
            {
                tracing::warn!("the model did not shut down cleanly: {error}");
            }
        };
        std::thread::Builder::new().name("engine".into()).spawn(run).map_err(Error::Thread)
    }

    /// Applies the pending commands and runs a step; waits for a command if there is no work.
    pub(crate) fn step_pending(&mut self) {
        if let Some(commands) = self.receive() {
            self.step(commands);
        }
    }

    /// Whether requests are unfinished.
    fn has_work(&self) -> bool {
        let EngineStats { waiting, running, .. } = self.stats();
        waiting + running > 0
    }

    /// The worker's statistics, until its final error.
    fn stats(&self) -> EngineStats {
        match self.failure {
            Some(_) => EngineStats::default(),
            None => self.worker.stats(),
        }
    }

    /// The pending commands; waits for one if there is no work. `None` once the client is dropped.
    fn receive(&mut self) -> Option<Vec<Command<W::Request>>> {
        let mut commands = Vec::new();
        while commands.is_empty() && !self.has_work() {
            match self.commands.recv_timeout(IDLE) {
                Ok(command) => commands.push(command),
                Err(RecvTimeoutError::Timeout) if self.failure.is_some() => {}
                Err(RecvTimeoutError::Timeout) => self.worker.idle(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => commands.push(command),
                Err(TryRecvError::Empty) => return Some(commands),
                Err(TryRecvError::Disconnected) if commands.is_empty() => return None,
                Err(TryRecvError::Disconnected) => return Some(commands),
            }
        }
    }

    /// Applies `commands` and runs a step. If it fails, all requests do; later ones too if the error is final.
    fn step(&mut self, commands: Vec<Command<W::Request>>) {
        let (mut requests, mut added) = (Vec::new(), Vec::new());
        for command in commands {
            match command {
                Command::Add(new) => {
                    for (request, live) in
                        new.into_iter().filter(|(_, live)| !live.events.is_closed())
                    {
                        requests.push(request);
                        added.push(live);
                    }
                }
                Command::Abort => {
                    requests.clear();
                    added.drain(..).for_each(|live: Live| live.fail(Error::Aborted));
                    self.end_all(|| Error::Aborted);
                }
            }
        }
        if let Some(failure) = &self.failure {
            added.into_iter().for_each(|live| live.fail(Error::LastStep(failure.clone())));
            return;
        }
        self.take_cancelled();
        let cancelled = take(&mut self.cancelled);
        let outputs = self.worker.submit(requests, &cancelled).and_then(|submitted| {
            for (submitted, live) in submitted.into_iter().zip(added.drain(..)) {
                match submitted {
                    Ok(id) => drop(self.live.insert(id, live)),
                    Err(error) => live.fail(error),
                }
            }
            if self.has_work() { self.worker.step() } else { Ok(Vec::new()) }
        });
        let outputs = outputs.map_err(Arc::new);
        if W::ERRORS_ARE_FINAL {
            self.failure = outputs.as_ref().err().cloned();
        }
        // Before the outputs: a reader may ask for the statistics as soon as it has its completion.
        self.stats.send_replace(self.stats());
        match outputs {
            Ok(outputs) => outputs.into_iter().for_each(|output| self.deliver(output)),
            Err(error) => {
                if self.logs_errors {
                    tracing::error!(%error, "the engine step failed, all requests are aborted");
                }
                let failed = || match W::ERRORS_ARE_FINAL {
                    true => Error::LastStep(error.clone()),
                    false => Error::Step(error.clone()),
                };
                added.into_iter().for_each(|live| live.fail(failed()));
                self.end_all(failed);
            }
        }
    }

    /// Ends the samples whose readers are gone or have cancelled them.
    fn take_cancelled(&mut self) {
        let cancelled = &mut self.cancelled;
        self.live.retain(|id, live| {
            for (sample, open) in live.open.iter_mut().enumerate() {
                if *open && live.events.is_cancelled(live.first_choice + sample) {
                    *open = false;
                    cancelled.push((*id, sample));
                }
            }
            live.open.contains(&true)
        });
    }

    fn deliver(&mut self, output: EngineOutput) {
        match output {
            EngineOutput::Prefilled { request, cached_tokens, logprobs } => {
                let Some(live) = self.live.get_mut(&request).filter(|live| !live.is_prefilled)
                else {
                    return;
                };
                live.is_prefilled = true;
                let prompt = live.prompt;
                live.events.send(Event::Prefilled { prompt, cached_tokens, logprobs });
            }
            EngineOutput::Token { request, sample, token } => {
                let Some(live) = self.live.get(&request) else { return };
                let choice = live.first_choice + sample;
                if !live.events.send(Event::Token { choice, token, sampled_at: Instant::now() }) {
                    self.end(request, || Error::SlowReader);
                }
            }
            EngineOutput::Finished { request, sample, finish_reason } => {
                self.finish(request, sample, finish_reason);
            }
            EngineOutput::NonFinite { request, .. } => {
                self.end(request, || embodied_r_policy::Error::NonFiniteLogits.into());
            }
        }
    }

    /// Sends the end of a sample. With the last sample, its request ends first, so that its permit is free when the reader
    /// is notified.
    fn finish(&mut self, request: RequestId, sample: usize, finish: FinishReason) {
        let Some(live) = self.live.get_mut(&request) else { return };
        live.open[sample] = false;
        let event = Event::Finished { choice: live.first_choice + sample, finish };
        if live.open.contains(&true) {
            live.events.send(event);
        } else if let Some(live) = self.live.remove(&request) {
            live.events.send_last(Ok(event));
        }
    }

    /// Ends a request, and cancels it in the engine.
    fn end(&mut self, request: RequestId, error: impl FnOnce() -> Error) {
        let Some(live) = self.live.remove(&request) else { return };
        let open = live.open.iter().enumerate().filter(|(_, open)| **open);
        self.cancelled.extend(open.map(|(sample, _)| (request, sample)));
        live.fail(error());
    }

    /// Ends all requests.
    fn end_all(&mut self, error: impl Fn() -> Error) {
        let all: Vec<RequestId> = self.live.keys().copied().collect();
        all.into_iter().for_each(|request| self.end(request, &error));
    }
}

impl Live {
    /// Ends the request with an error, which names its prompt if the engine rejects it.
    fn fail(self, error: Error) {
        let error = match error {
            Error::Policy(error) => Error::from(error.at_sequence(self.prompt)),
            other => other,
        };
        self.events.send_last(Err(error));
    }
}
