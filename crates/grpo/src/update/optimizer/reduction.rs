//! Overlapped gradient reduction, and its result.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::in_flight::{AllReduceQueue, ReduceScatterQueue};
use super::sharded::GradientShard;
use crate::error::Result;
use crate::model::NamedGradients;

/// Gradients reduced over all ranks, ready for an optimizer step.
pub struct ReducedGradients<'a, G> {
    pub(super) norm: f64,
    pub(super) of: Reduced<'a, G>,
}

pub(super) enum Reduced<'a, G> {
    /// All gradients, reduced in place.
    Replicated(&'a G),
    /// This rank's shard.
    Sharded(GradientShard),
}

impl<G> ReducedGradients<'_, G> {
    /// The global gradient norm; non-finite if any element is.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.norm
    }
}

/// Reduces gradients over all ranks as soon as they are final, overlapped with the backward pass.
///
/// Every rank sends them in the same order, last to first, from a dedicated thread, so that the backward pass never
/// waits for the network. No other communication is allowed until it finishes.
#[must_use]
pub struct Reduction {
    final_gradients: Arc<FinalGradients>,
    /// `None` for a single rank, whose gradients need no reduction.
    sending: Option<JoinHandle<Result<Reducer>>>,
}

/// Progress of the backward pass, shared with the sending thread.
struct FinalGradients {
    finality: Mutex<Finality>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finality {
    /// Gradients are final from this flat element on.
    From(usize),
    /// The backward pass was abandoned.
    Abandoned,
}

pub(super) enum Reducer {
    Sharded(ReduceScatterQueue),
    Replicated(AllReduceQueue),
}

impl Reducer {
    /// Sends gradients as they become final, then waits for all reductions.
    fn send(mut self, final_gradients: &FinalGradients) -> Result<Self> {
        let mut before = Finality::From(usize::MAX);
        loop {
            let Finality::From(from) = final_gradients.wait_past(before) else { return Ok(self) };
            match &mut self {
                Self::Sharded(queue) => queue.send_from(from)?,
                Self::Replicated(queue) => queue.send_from(from)?,
            }
            if from == 0 {
                break;
            }
            before = Finality::From(from);
        }
        match &mut self {
            Self::Sharded(queue) => queue.wait_all()?,
            Self::Replicated(queue) => queue.wait_all()?,
        }
        Ok(self)
    }
}

impl FinalGradients {
    fn advance(&self, changed: Finality) {
        let mut finality = self.finality.lock().unwrap_or_else(PoisonError::into_inner);
        *finality = match (*finality, changed) {
            (Finality::From(before), Finality::From(now)) => Finality::From(before.min(now)),
            _ => Finality::Abandoned,
        };
        self.changed.notify_all();
    }

    /// Waits until the progress exceeds `before`.
    fn wait_past(&self, before: Finality) -> Finality {
        let finality = self.finality.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.changed.wait_while(finality, |finality| *finality == before);
        *known.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reduction {
    /// Starts the sending thread; `None` for a single rank.
    pub(super) fn new(reducer: Option<Reducer>) -> Self {
        let finality = Mutex::new(Finality::From(usize::MAX));
        let final_gradients = Arc::new(FinalGradients { finality, changed: Condvar::new() });
        let sending = reducer.map(|reducer| {
            let final_gradients = Arc::clone(&final_gradients);
            std::thread::spawn(move || reducer.send(&final_gradients))
        });
        Self { final_gradients, sending }
    }

    /// Marks this rank's gradients from flat element `from` on, in the order of the parameters, as final.
    pub fn final_from(&self, from: usize) {
        self.final_gradients.advance(Finality::From(from));
    }

    /// Sends the rest and waits for the reduced `gradients`, the ones the reduction started with.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn finish<G: NamedGradients>(mut self, gradients: &G) -> Result<ReducedGradients<'_, G>> {
        self.final_from(0);
        let reducer = match self.sending.take() {
            Some(sending) => {
                Some(sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
            }
            None => None,
        };
        if let Some(Reducer::Sharded(queue)) = reducer {
            let reduced = queue.into_sums()?;
            return Ok(ReducedGradients { norm: reduced.norm, of: Reduced::Sharded(reduced) });
        }
        Ok(ReducedGradients { norm: gradients.norm()?, of: Reduced::Replicated(gradients) })
    }
}

impl Drop for Reduction {
    fn drop(&mut self) {
        if self.sending.is_some() {
            self.final_gradients.advance(Finality::Abandoned);
        }
    }
}
