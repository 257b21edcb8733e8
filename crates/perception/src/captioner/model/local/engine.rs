//! The generation engine on a thread of its own, asked from asynchronous code.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use embodied_r_policy::{
    Engine, EngineStats, Finish, Output, Prompt, Request, RequestId, Sampling,
};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, Result};

/// How often a worker without work is called.
const IDLE: Duration = Duration::from_secs(1);

/// Draws completions for what is asked, on a thread of its own.
pub(super) trait Worker: Send + 'static {
    /// A prompt, and how it is to be gone on with.
    type Asked: Send + 'static;

    /// Ends the requests `cancelled` and begins those `asked`, or says why one cannot be.
    ///
    /// # Errors
    /// Nothing more can be drawn at all.
    fn take(
        &mut self,
        asked: Vec<Self::Asked>,
        cancelled: &[RequestId],
    ) -> Result<Vec<Result<RequestId>>>;

    /// The engine's next step.
    ///
    /// # Errors
    /// As [`Self::take`].
    fn step(&mut self) -> Result<Vec<Output>>;

    /// How the engine is doing.
    fn stats(&self) -> EngineStats;

    /// Called now and then while there is nothing to do.
    fn idle(&self) {}

    /// Called when nobody is left to ask.
    fn end(self) -> Result<()>
    where
        Self: Sized,
    {
        Ok(())
    }
}

/// A request of one's own model.
pub(super) struct OwnRequest {
    pub(super) prompt: Prompt,
    pub(super) sampling: Arc<Sampling>,
    /// What its random numbers follow from.
    pub(super) stream: u64,
}

impl Worker for Engine {
    type Asked = OwnRequest;

    fn take(
        &mut self,
        asked: Vec<OwnRequest>,
        cancelled: &[RequestId],
    ) -> Result<Vec<Result<RequestId>>> {
        cancelled.iter().for_each(|request| self.cancel(*request));
        let add = |OwnRequest { prompt, sampling, stream }| {
            Ok(self.add(&Request { prompt, samples: 1, stream }, &sampling)?)
        };
        Ok(asked.into_iter().map(add).collect())
    }

    fn step(&mut self) -> Result<Vec<Output>> {
        Ok(Engine::step(self)?)
    }

    fn stats(&self) -> EngineStats {
        Engine::stats(self)
    }
}

/// A worker that takes prompts from many tasks at once. Its thread ends with the value.
#[derive(Debug)]
pub(super) struct EngineThread<A> {
    /// There until the value is dropped.
    submissions: Option<Sender<Submission<A>>>,
    failure: Failure,
    stats: watch::Receiver<EngineStats>,
    thread: Option<JoinHandle<()>>,
}

/// Why the thread has ended before its time, once it has.
type Failure = Arc<OnceLock<Arc<Error>>>;

/// A prompt in the engine's hands; dropped, it is ended there.
pub(super) struct Running {
    failure: Failure,
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

struct Submission<A> {
    asked: A,
    begun: oneshot::Sender<()>,
    done: oneshot::Sender<Result<Completion>>,
}

impl<A: Send + 'static> EngineThread<A> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system gives none.
    pub(super) fn start<W: Worker<Asked = A>>(worker: W) -> Result<Self> {
        let (submissions, receiver) = mpsc::channel();
        let (sender, stats) = watch::channel(worker.stats());
        let failure = Failure::default();
        let work = Work {
            worker,
            submissions: receiver,
            failure: failure.clone(),
            stats: sender,
            live: HashMap::new(),
        };
        let thread = std::thread::Builder::new().name("captions".into());
        let thread = Some(thread.spawn(move || work.run()).map_err(Error::Thread)?);
        Ok(Self { submissions: Some(submissions), failure, stats, thread })
    }

    /// Hands over a request.
    pub(super) fn submit(&self, asked: A) -> Running {
        let ((begun, has_begun), (done, is_done)) = (oneshot::channel(), oneshot::channel());
        if let Some(submissions) = &self.submissions {
            // If the thread has ended, the other channels close and tell so.
            let _ = submissions.send(Submission { asked, begun, done });
        }
        Running { failure: self.failure.clone(), begun: has_begun, done: is_done }
    }

    /// How the engine was doing after its last step.
    pub(super) fn stats(&self) -> EngineStats {
        *self.stats.borrow()
    }
}

impl<A> Drop for EngineThread<A> {
    fn drop(&mut self) {
        self.submissions = None;
        // What the thread says to other ranks at its end comes before what they are told next.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
        let Self { failure, done, .. } = self;
        let gone = || failure.get().map_or(Error::EngineGone, |why| Error::Shared(why.clone()));
        done.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// What the thread owns.
struct Work<W: Worker> {
    worker: W,
    submissions: Receiver<Submission<W::Asked>>,
    failure: Failure,
    stats: watch::Sender<EngineStats>,
    live: HashMap<RequestId, Live>,
}

/// A prompt that the engine has.
struct Live {
    ids: Vec<u32>,
    begun: Option<oneshot::Sender<()>>,
    done: oneshot::Sender<Result<Completion>>,
}

impl<W: Worker> Work<W> {
    fn run(mut self) {
        while let Some(submissions) = self.next() {
            if self.turn(submissions).is_none() {
                // All who wait find their channels closed.
                return;
            }
            self.stats.send_replace(self.worker.stats());
        }
        if let Err(error) = self.worker.end() {
            tracing::warn!("the model does not end in good order: {error}");
        }
    }

    /// Takes what is new and makes a step; none when it cannot go on.
    fn turn(&mut self, submissions: Vec<Submission<W::Asked>>) -> Option<()> {
        let deserted = self.deserted();
        let (mut asked, mut waiting) = (Vec::new(), Vec::new());
        for Submission { asked: new, begun, done } in submissions {
            asked.push(new);
            waiting.push(Live { ids: Vec::new(), begun: Some(begun), done });
        }
        let taken = self.worker.take(asked, &deserted);
        for (taken, live) in self.known(taken)?.into_iter().zip(waiting) {
            match taken {
                Ok(id) => drop(self.live.insert(id, live)),
                Err(error) => drop(live.done.send(Err(error))),
            }
        }
        if self.has_work() {
            let outputs = self.worker.step();
            self.known(outputs)?.into_iter().for_each(|output| self.deliver(output));
        }
        Some(())
    }

    /// What was made, or none once those who wait, now and later, can see why not.
    fn known<T>(&self, made: Result<T>) -> Option<T> {
        made.map_err(|error| self.failure.set(Arc::new(error))).ok()
    }

    fn has_work(&self) -> bool {
        let EngineStats { waiting, running, .. } = self.worker.stats();
        waiting + running > 0
    }

    /// What was submitted meanwhile; without work it is waited for. None when nobody is left to ask.
    fn next(&mut self) -> Option<Vec<Submission<W::Asked>>> {
        let mut submissions = Vec::new();
        while !self.has_work() && submissions.is_empty() {
            match self.submissions.recv_timeout(IDLE) {
                Ok(submission) => submissions.push(submission),
                Err(RecvTimeoutError::Timeout) => self.worker.idle(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        loop {
            match self.submissions.try_recv() {
                Ok(submission) => submissions.push(submission),
                Err(TryRecvError::Empty) => return Some(submissions),
                Err(TryRecvError::Disconnected) if submissions.is_empty() => return None,
                Err(TryRecvError::Disconnected) => return Some(submissions),
            }
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

    /// Takes out what nobody waits for any more.
    fn deserted(&mut self) -> Vec<RequestId> {
        self.live.extract_if(|_, live| live.done.is_closed()).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loses a rank at the first prompt.
    struct Lost;

    impl Worker for Lost {
        type Asked = ();

        fn take(&mut self, _: Vec<()>, _: &[RequestId]) -> Result<Vec<Result<RequestId>>> {
            Err(Error::Ranks(Box::new(Error::NoUsage)))
        }

        fn step(&mut self) -> Result<Vec<Output>> {
            Ok(Vec::new())
        }

        fn stats(&self) -> EngineStats {
            EngineStats::default()
        }
    }

    #[tokio::test]
    async fn all_who_wait_and_who_come_later_are_told_why_the_engine_ended() {
        for _ in 0..50 {
            let engine = EngineThread::start(Lost).unwrap();
            let waiting: Vec<Running> = (0..4).map(|_| engine.submit(())).collect();
            for running in waiting {
                let error = running.done().await.unwrap_err();
                assert!(error.is_fatal(), "{error}");
                assert_eq!(error.to_string(), Error::NoUsage.to_string());
            }
            let error = engine.submit(()).done().await.unwrap_err();
            assert_eq!(error.to_string(), Error::NoUsage.to_string());
        }
    }
}
