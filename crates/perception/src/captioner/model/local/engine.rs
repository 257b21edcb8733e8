//! The generation engine on a thread of its own, asked from asynchronous code.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use embodied_r_policy::{
    Engine, EngineStats, Finish, Output, Prompt, Request, RequestId, Sampling,
};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, Result};

/// An engine that takes prompts from many tasks at once. Its thread ends with the value.
#[derive(Debug)]
pub(super) struct EngineThread {
    submissions: Sender<Submission>,
    stats: watch::Receiver<EngineStats>,
}

/// A prompt in the engine's hands; dropped, it is ended there.
pub(super) struct Running {
    begun: oneshot::Receiver<()>,
    done: oneshot::Receiver<Result<Completion>>,
}

/// What followed a prompt.
#[derive(Debug)]
pub(super) struct Completion {
    /// The tokens, the stop token included.
    pub(super) ids: Vec<u32>,
    pub(super) finish: Finish,
}

struct Submission {
    prompt: Prompt,
    sampling: Arc<Sampling>,
    stream: u64,
    begun: oneshot::Sender<()>,
    done: oneshot::Sender<Result<Completion>>,
}

impl EngineThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system gives none.
    pub(super) fn start(engine: Engine) -> Result<Self> {
        let (submissions, receiver) = mpsc::channel();
        let (sender, stats) = watch::channel(engine.stats());
        let work = Work { engine, submissions: receiver, stats: sender, live: HashMap::new() };
        let thread = std::thread::Builder::new().name("captions".into());
        thread.spawn(move || work.run()).map_err(Error::Thread)?;
        Ok(Self { submissions, stats })
    }

    /// Hands over a prompt; its random numbers follow from `stream`.
    pub(super) fn submit(&self, prompt: Prompt, sampling: Arc<Sampling>, stream: u64) -> Running {
        let ((begun, has_begun), (done, is_done)) = (oneshot::channel(), oneshot::channel());
        // If the thread has ended, the other channels close and tell so.
        let _ = self.submissions.send(Submission { prompt, sampling, stream, begun, done });
        Running { begun: has_begun, done: is_done }
    }

    /// How the engine was doing after its last step.
    pub(super) fn stats(&self) -> EngineStats {
        *self.stats.borrow()
    }
}

impl Running {
    /// Waits until the prompt is computed, so that others can have what they begin with in common.
    pub(super) async fn begun(&mut self) {
        // A prompt that was refused never begins.
        let _ = (&mut self.begun).await;
    }

    /// Waits until nothing more follows.
    ///
    /// # Errors
    /// The engine refuses the prompt, or cannot go on.
    pub(super) async fn done(self) -> Result<Completion> {
        self.done.await.unwrap_or(Err(Error::EngineGone))
    }
}

/// What the thread owns.
struct Work {
    engine: Engine,
    submissions: Receiver<Submission>,
    stats: watch::Sender<EngineStats>,
    live: HashMap<RequestId, Live>,
}

/// A prompt that the engine has.
struct Live {
    ids: Vec<u32>,
    begun: Option<oneshot::Sender<()>>,
    done: oneshot::Sender<Result<Completion>>,
}

impl Work {
    fn run(mut self) {
        loop {
            match self.next() {
                Ok(Some(submission)) => {
                    self.add(submission);
                    continue;
                }
                Ok(None) => {}
                Err(Ended) => return,
            }
            self.end_deserted();
            if !self.engine.has_work() {
                continue;
            }
            match self.engine.step() {
                Ok(outputs) => outputs.into_iter().for_each(|output| self.deliver(output)),
                Err(error) => return self.fail(error),
            }
            self.stats.send_replace(self.engine.stats());
        }
    }

    /// A submission if there is one; without work it is waited for.
    fn next(&mut self) -> Result<Option<Submission>, Ended> {
        if !self.engine.has_work() {
            return self.submissions.recv().map(Some).map_err(|_| Ended);
        }
        match self.submissions.try_recv() {
            Ok(submission) => Ok(Some(submission)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Ended),
        }
    }

    fn add(&mut self, Submission { prompt, sampling, stream, begun, done }: Submission) {
        match self.engine.add(&Request { prompt, samples: 1, stream }, &sampling) {
            Ok(id) => {
                let live = Live { ids: Vec::new(), begun: Some(begun), done };
                self.live.insert(id, live);
            }
            Err(error) => drop(done.send(Err(error.into()))),
        }
    }

    fn deliver(&mut self, output: Output) {
        match output {
            Output::Token { request, token, .. } => {
                let Some(live) = self.live.get_mut(&request) else { return };
                live.ids.push(token.id);
                if let Some(begun) = live.begun.take() {
                    let _ = begun.send(());
                }
            }
            Output::Finished { request, finish, .. } => {
                if let Some(Live { ids, done, .. }) = self.live.remove(&request) {
                    let _ = done.send(Ok(Completion { ids, finish }));
                }
            }
        }
    }

    /// Ends what nobody waits for any more.
    fn end_deserted(&mut self) {
        let engine = &mut self.engine;
        self.live.retain(|id, live| {
            let deserted = live.done.is_closed();
            if deserted {
                engine.cancel(*id);
            }
            !deserted
        });
    }

    /// Tells all who wait that the engine cannot go on; who comes later finds the thread gone.
    fn fail(self, error: embodied_r_policy::Error) {
        let error = Arc::new(Error::from(error));
        for live in self.live.into_values() {
            let _ = live.done.send(Err(Error::Shared(error.clone())));
        }
    }
}

/// Nobody is left to ask.
struct Ended;
