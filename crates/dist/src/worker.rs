//! The one thread of a rank that moves data. What it is given is done in order, while others compute.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::group::Group;
use crate::operation::{Call, Operation};
use crate::pending::{Pending, Slot};
use crate::watch::{Watch, lock};

type Job = Box<dyn FnOnce(&mut Group) -> Result<()> + Send>;

/// Whose calls follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Those of all ranks.
    World,
    /// Those of the part that this rank belongs to.
    Part,
}

enum Work {
    Do(Job),
    Close(Slot<()>),
    Abort(i32),
}

/// The caller's end of the worker's queue. The number of a call and its place in the queue are one
/// matter, whichever thread calls.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct State {
    /// Of all ranks, and of the part.
    calls: [u64; 2],
    is_split: bool,
    work: Option<Sender<Work>>,
}

impl Queue {
    /// Starts the worker; `make` makes the ranks' connection there, and what else it gives comes back.
    ///
    /// # Errors
    ///
    /// `make` failed, or took longer than `within`.
    pub(crate) fn start<T: Send + 'static>(
        watch: &Arc<Watch>,
        within: Duration,
        make: impl FnOnce() -> Result<(Group, T)> + Send + 'static,
    ) -> Result<(Self, T)> {
        let (work, jobs) = channel();
        let (made, hear) = channel();
        let body = move || match make() {
            Ok((group, given)) => {
                let _ = made.send(Ok(given));
                drop(made);
                run(group, &jobs);
            }
            Err(error) => drop(made.send(Err(error))),
        };
        let system = |source| Error::System { what: "start the thread that moves data", source };
        thread::Builder::new().name("dist-data".into()).spawn(body).map_err(system)?;
        let given = hear.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                Error::Timeout { rank: watch.rank(), what: "coming together", waited: within }
            }
            RecvTimeoutError::Disconnected => system(std::io::Error::other("it ended at once")),
        })??;
        let state = Mutex::new(State { calls: [0; 2], is_split: false, work: Some(work) });
        Ok((Self { state, watch: Arc::clone(watch) }, given))
    }

    /// Queues a call: `run` gets the calls of all ranks once they agree.
    ///
    /// # Errors
    ///
    /// The job was ended by a verdict or finished.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        lane: Lane,
        mut call: Call,
        run: impl FnOnce(&mut Group, &[Call]) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>> {
        self.watch.check()?;
        let finished = Error::Finished { operation: call.operation };
        let mut state = lock(&self.state);
        let Some(work) = &state.work else { return Err(finished) };
        call.sequence = state.calls[lane as usize] + 1;
        let (pending, slot) = Pending::on_its_way(&self.watch);
        let job: Job = Box::new(move |world| {
            let group = match (lane, &mut world.part) {
                (Lane::Part, Some(part)) => part,
                _ => world,
            };
            let calls = group.agree(call)?;
            slot.fill(run(group, &calls)?);
            group.watch.finished(lane, call.sequence);
            Ok(())
        });
        self.watch.entered(lane, call);
        work.send(Work::Do(job)).map_err(|_| finished)?;
        state.calls[lane as usize] += 1;
        state.is_split |= call.operation == Operation::Split;
        Ok(pending)
    }

    /// Whether the ranks were divided.
    pub(crate) fn is_split(&self) -> bool {
        lock(&self.state).is_split
    }

    /// Ends the connection of the ranks when all before it is done; nothing can be queued after it.
    pub(crate) fn close(&self) -> Pending<()> {
        let (pending, slot) = Pending::on_its_way(&self.watch);
        if let Some(work) = lock(&self.state).work.take() {
            let _ = work.send(Work::Close(slot));
        }
        pending
    }

    /// Ends all processes, where the connection can.
    pub(crate) fn abort(&self, exit_code: i32) {
        if let Some(work) = &lock(&self.state).work {
            let _ = work.send(Work::Abort(exit_code));
        }
    }
}

fn run(mut group: Group, jobs: &Receiver<Work>) {
    let watch = Arc::clone(&group.watch);
    while let Ok(work) = jobs.recv() {
        match work {
            // An error is a verdict, which everybody who waits gets.
            Work::Do(job) => {
                if watch.verdict().is_none() {
                    let _ = job(&mut group);
                }
            }
            Work::Abort(exit_code) => group.link.abort(exit_code),
            Work::Close(slot) => {
                group.close();
                slot.fill(());
                watch.wake();
                return;
            }
        }
    }
}
