//! The generation engine on its own thread, for asynchronous callers.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use embodied_r_policy::{
    Engine, EngineOutput, EngineStats, FinishReason, GenerationRequest, Prompt, RequestId,
    SamplingParams,
};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, Result};

/// Interval of [`Worker::idle`].
const IDLE: Duration = Duration::from_secs(1);

/// Generates completions, on the engine thread.
pub(super) trait Worker: Send + 'static {
    /// A prompt with its sampling options.
    type Request: Send + 'static;

    /// Cancels the requests `cancelled` and adds `requests`, each of which may be rejected.
    ///
    /// # Errors
    /// The engine has failed.
    fn submit(
        &mut self,
        requests: Vec<Self::Request>,
        cancelled: &[RequestId],
    ) -> Result<Vec<Result<RequestId>>>;

    /// The engine's next step.
    ///
    /// # Errors
    /// As [`Self::submit`].
    fn step(&mut self) -> Result<Vec<EngineOutput>>;

    /// The engine's statistics.
    fn stats(&self) -> EngineStats;

    /// Called every second while there are no requests.
    fn idle(&self) {}

    /// Called on shutdown.
    fn end(self) -> Result<()>
    where
        Self: Sized,
    {
        Ok(())
    }
}

/// A request to the engine of a model on one rank.
pub(super) struct PromptRequest {
    pub(super) prompt: Prompt,
    pub(super) sampling: Arc<SamplingParams>,
    /// The random stream.
    pub(super) stream: u64,
}

impl Worker for Engine {
    type Request = PromptRequest;

    fn submit(
        &mut self,
        requests: Vec<PromptRequest>,
        cancelled: &[RequestId],
    ) -> Result<Vec<Result<RequestId>>> {
        cancelled.iter().for_each(|request| self.cancel(*request));
        let add = |PromptRequest { prompt, sampling, stream }| {
            Ok(self.add(
                &GenerationRequest { prompt, samples: 1, stream, first_sample: 0 },
                &sampling,
            )?)
        };
        Ok(requests.into_iter().map(add).collect())
    }

    fn step(&mut self) -> Result<Vec<EngineOutput>> {
        Ok(Engine::step(self)?)
    }

    fn stats(&self) -> EngineStats {
        Engine::stats(self)
    }
}

/// A worker on its own thread, shared by many tasks. The thread is joined on drop.
#[derive(Debug)]
pub(super) struct EngineThread<R> {
    /// `Some` until drop.
    submissions: Option<Sender<Submission<R>>>,
    failure: Failure,
    stats: watch::Receiver<EngineStats>,
    thread: Option<JoinHandle<()>>,
}

/// The error that ended the thread, if any.
type Failure = Arc<OnceLock<Arc<Error>>>;

/// A request in the engine; dropping it cancels the request.
pub(super) struct PendingCompletion {
    failure: Failure,
    prefilled: oneshot::Receiver<()>,
    done: oneshot::Receiver<Result<Completion>>,
}

/// A completion.
#[derive(Debug)]
pub(super) struct Completion {
    /// The tokens, the stop token included.
    pub(super) ids: Vec<u32>,
    pub(super) finish: FinishReason,
}

struct Submission<R> {
    request: R,
    prefilled: oneshot::Sender<()>,
    done: oneshot::Sender<Result<Completion>>,
}

impl<R: Send + 'static> EngineThread<R> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be spawned.
    pub(super) fn start<W: Worker<Request = R>>(worker: W) -> Result<Self> {
        let (submissions, receiver) = mpsc::channel();
        let (sender, stats) = watch::channel(worker.stats());
        let failure = Failure::default();
        let engine_loop = EngineLoop {
            worker,
            submissions: receiver,
            failure: failure.clone(),
            stats: sender,
            active: HashMap::new(),
        };
        let thread = std::thread::Builder::new().name("captions".into());
        let thread = Some(thread.spawn(move || engine_loop.run()).map_err(Error::Thread)?);
        Ok(Self { submissions: Some(submissions), failure, stats, thread })
    }

    /// Submits a request.
    pub(super) fn submit(&self, request: R) -> PendingCompletion {
        let ((prefilled, is_prefilled), (done, is_done)) = (oneshot::channel(), oneshot::channel());
        if let Some(submissions) = &self.submissions {
            // If the thread has ended, the other channels close and report it.
            let _ = submissions.send(Submission { request, prefilled, done });
        }
        PendingCompletion { failure: self.failure.clone(), prefilled: is_prefilled, done: is_done }
    }

    /// The engine's statistics after its last step.
    pub(super) fn stats(&self) -> EngineStats {
        *self.stats.borrow()
    }
}

impl<R> Drop for EngineThread<R> {
    fn drop(&mut self) {
        self.submissions = None;
        // The thread's shutdown message to other ranks must precede any later message.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl PendingCompletion {
    /// Waits for the prefill, so that later requests can reuse the shared prefix.
    pub(super) async fn prefilled(&mut self) {
        // A rejected prompt is never prefilled.
        let _ = (&mut self.prefilled).await;
    }

    /// Waits for the whole completion.
    ///
    /// # Errors
    /// The engine rejects the prompt, or has failed.
    pub(super) async fn done(self) -> Result<Completion> {
        let Self { failure, done, .. } = self;
        let stopped =
            || failure.get().map_or(Error::EngineStopped, |error| Error::Shared(error.clone()));
        done.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// The state of the engine thread.
struct EngineLoop<W: Worker> {
    worker: W,
    submissions: Receiver<Submission<W::Request>>,
    failure: Failure,
    stats: watch::Sender<EngineStats>,
    active: HashMap<RequestId, ActiveRequest>,
}

/// A request that the engine is processing.
struct ActiveRequest {
    ids: Vec<u32>,
    prefilled: Option<oneshot::Sender<()>>,
    done: oneshot::Sender<Result<Completion>>,
}

impl<W: Worker> EngineLoop<W> {
    fn run(mut self) {
        while let Some(submissions) = self.receive() {
            if self.step(submissions).is_none() {
                // All waiting tasks find their channels closed.
                return;
            }
        }
        if let Err(error) = self.worker.end() {
            tracing::warn!("the model did not shut down cleanly: {error}");
        }
    }

    /// Submits new requests and runs a step; `None` if the engine has failed.
    fn step(&mut self, submissions: Vec<Submission<W::Request>>) -> Option<()> {
        let dropped = self.take_dropped();
        let (mut requests, mut waiting) = (Vec::new(), Vec::new());
        for Submission { request, prefilled, done } in submissions {
            requests.push(request);
            waiting.push(ActiveRequest { ids: Vec::new(), prefilled: Some(prefilled), done });
        }
        let submitted = self.worker.submit(requests, &dropped);
        for (submitted, active) in self.record_failure(submitted)?.into_iter().zip(waiting) {
            match submitted {
                Ok(id) => drop(self.active.insert(id, active)),
                Err(error) => drop(active.done.send(Err(error))),
            }
        }
        let outputs = if self.has_work() { self.worker.step() } else { Ok(Vec::new()) };
        let outputs = self.record_failure(outputs)?;
        // Before the outputs: a task may ask for the statistics as soon as it has its completion.
        self.stats.send_replace(self.worker.stats());
        outputs.into_iter().for_each(|output| self.deliver(output));
        Some(())
    }

    /// The result's value; `None` after recording the failure for waiting and later tasks.
    fn record_failure<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.failure.set(Arc::new(error))).ok()
    }

    fn has_work(&self) -> bool {
        let EngineStats { waiting, running, .. } = self.worker.stats();
        waiting + running > 0
    }

    /// New submissions; waits for one if there is no work. `None` on shutdown.
    fn receive(&mut self) -> Option<Vec<Submission<W::Request>>> {
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

    fn deliver(&mut self, output: EngineOutput) {
        match output {
            EngineOutput::Prefilled { .. } => {}
            EngineOutput::Token { request, token, .. } => {
                let Some(active) = self.active.get_mut(&request) else { return };
                active.ids.push(token.id);
                if let Some(prefilled) = active.prefilled.take() {
                    let _ = prefilled.send(());
                }
            }
            EngineOutput::Finished { request, finish_reason: finish, .. } => {
                if let Some(ActiveRequest { ids, done, .. }) = self.active.remove(&request) {
                    let _ = done.send(Ok(Completion { ids, finish }));
                }
            }
            EngineOutput::NonFinite { request, .. } => {
                if let Some(ActiveRequest { done, .. }) = self.active.remove(&request) {
                    let _ = done.send(Err(embodied_r_policy::Error::NonFiniteLogits.into()));
                }
            }
        }
    }

    /// Removes the requests whose tasks have dropped them.
    fn take_dropped(&mut self) -> Vec<RequestId> {
        self.active.extract_if(|_, active| active.done.is_closed()).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at the first prompt.
    struct FailingWorker;

    impl Worker for FailingWorker {
        type Request = ();

        fn submit(&mut self, _: Vec<()>, _: &[RequestId]) -> Result<Vec<Result<RequestId>>> {
            Err(Error::TensorParallel(Box::new(Error::NoUsage)))
        }

        fn step(&mut self) -> Result<Vec<EngineOutput>> {
            Ok(Vec::new())
        }

        fn stats(&self) -> EngineStats {
            EngineStats::default()
        }
    }

    #[tokio::test]
    async fn waiting_and_later_tasks_get_the_error_that_ended_the_engine() {
        for _ in 0..50 {
            let engine = EngineThread::start(FailingWorker).unwrap();
            let pending: Vec<PendingCompletion> = (0..4).map(|_| engine.submit(())).collect();
            for completion in pending {
                let error = completion.done().await.unwrap_err();
                assert!(error.is_fatal(), "{error}");
                assert_eq!(error.to_string(), Error::NoUsage.to_string());
            }
            let error = engine.submit(()).done().await.unwrap_err();
            assert_eq!(error.to_string(), Error::NoUsage.to_string());
        }
    }
}
