//! A rank's communication thread. It runs queued collectives in order while other threads compute.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::failure::FailureCause;
use crate::group::Group;
use crate::operation::{Call, GroupKind, Operation};
use crate::pending::{Pending, Slot};
use crate::rank_state::{RankState, lock};

type Task = Box<dyn FnOnce(&mut Group) -> Result<()> + Send>;

enum Command {
    Run(Task),
    Close(Slot<()>),
    Abort(i32),
}

/// The caller's end of the communication thread's queue. One lock covers a call's sequence number and its position
/// in the queue, so that both agree whichever thread calls.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    rank_state: Arc<RankState>,
}

#[derive(Debug)]
struct State {
    /// Calls of the world and of the subgroup.
    calls: [u64; 2],
    is_split: bool,
    work: Option<Sender<Command>>,
}

impl Queue {
    /// Starts the communication thread. `make` runs on it and connects the ranks; its second result is returned.
    ///
    /// # Errors
    ///
    /// `make` failed, or took longer than `within`.
    pub(crate) fn start<T: Send + 'static>(
        rank_state: &Arc<RankState>,
        within: Duration,
        make: impl FnOnce() -> Result<(Group, T)> + Send + 'static,
    ) -> Result<(Self, T)> {
        let (work, jobs) = channel();
        let (made, receiver) = channel();
        let body = move || match make() {
            Ok((group, given)) => {
                let _ = made.send(Ok(given));
                drop(made);
                run(group, &jobs);
            }
            Err(error) => drop(made.send(Err(error))),
        };
        let system = |source| Error::System { what: "start the communication thread", source };
        thread::Builder::new().name("dist-data".into()).spawn(body).map_err(system)?;
        let given = receiver.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                Error::Timeout { rank: rank_state.rank(), what: "the rendezvous", waited: within }
            }
            RecvTimeoutError::Disconnected => system(std::io::Error::other("it exited early")),
        })??;
        let state = Mutex::new(State { calls: [0; 2], is_split: false, work: Some(work) });
        Ok((Self { state, rank_state: Arc::clone(rank_state) }, given))
    }

    /// Queues a call; `run` gets the calls of all ranks once they match.
    ///
    /// # Errors
    ///
    /// The job was aborted or finished.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        kind: GroupKind,
        mut call: Call,
        run: impl FnOnce(&mut Group, &[Call]) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>> {
        self.rank_state.check()?;
        let finished = Error::Finished { operation: call.operation };
        let mut state = lock(&self.state);
        let Some(work) = &state.work else { return Err(finished) };
        call.sequence = state.calls[kind as usize] + 1;
        let (pending, slot) = Pending::in_flight(&self.rank_state);
        let task: Task = Box::new(move |world| {
            let group = match (kind, &mut world.subgroup) {
                (GroupKind::Subgroup, Some(part)) => part,
                _ => world,
            };
            let calls = group.agree(call)?;
            slot.fill(run(group, &calls)?);
            group.rank_state.finished(kind, call.sequence);
            Ok(())
        });
        self.rank_state.entered(kind, call);
        work.send(Command::Run(task)).map_err(|_| finished)?;
        state.calls[kind as usize] += 1;
        state.is_split |= call.operation == Operation::Split;
        Ok(pending)
    }

    /// Whether the ranks were split into subgroups.
    pub(crate) fn is_split(&self) -> bool {
        lock(&self.state).is_split
    }

    /// Closes the link after all queued calls; nothing can be queued afterwards.
    pub(crate) fn close(&self) -> Pending<()> {
        let (pending, slot) = Pending::in_flight(&self.rank_state);
        if let Some(work) = lock(&self.state).work.take() {
            let _ = work.send(Command::Close(slot));
        }
        pending
    }

    /// Aborts all processes, if the backend can.
    pub(crate) fn abort(&self, exit_code: i32) {
        if let Some(work) = &lock(&self.state).work {
            let _ = work.send(Command::Abort(exit_code));
        }
    }
}

fn run(mut group: Group, jobs: &Receiver<Command>) {
    let rank_state = Arc::clone(&group.rank_state);
    while let Ok(work) = jobs.recv() {
        match work {
            // Waiters learn of errors through the failure report, so an error without one becomes one.
            Command::Run(task) => {
                if rank_state.failure().is_none()
                    && let Err(error) = task(&mut group)
                {
                    rank_state
                        .abort(rank_state.own_failure(FailureCause::Failed(error.to_string())));
                }
            }
            Command::Abort(exit_code) => group.link.abort(exit_code),
            Command::Close(slot) => {
                group.close();
                slot.fill(());
                rank_state.wake();
                return;
            }
        }
    }
}
