//! Gradients of all ranks together, and on their way there.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::reducing::{Reduced, Reducing, Summing};
use crate::error::Result;
use crate::model::Gradients;

/// The gradients of all ranks together, from which a step is made.
pub struct Summed<'a, G> {
    pub(super) norm: f64,
    pub(super) of: Sum<'a, G>,
}

pub(super) enum Sum<'a, G> {
    /// As they are.
    Whole(&'a G),
    /// This rank's part.
    Part(Reduced),
}

impl<G> Summed<'_, G> {
    /// The Euclidean norm over all parameters; not finite if any number is not.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.norm
    }
}

/// Gradients that are summed over all ranks as soon as they are final, while a backward makes others.
///
/// Every rank sends them in the same order, the last first. A thread of its own does so: the backward never waits for
/// links or other ranks. Until the end nobody else may call other ranks.
#[must_use]
pub struct Reduction {
    told: Arc<Told>,
    /// None for one rank, which has the sums already.
    sending: Option<JoinHandle<Result<Way>>>,
}

/// How far the gradients are final.
struct Told {
    how_far: Mutex<HowFar>,
    news: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HowFar {
    /// From this number on.
    From(usize),
    /// They will never be.
    Abandoned,
}

pub(super) enum Way {
    Parts(Reducing),
    Whole(Summing),
}

impl Way {
    /// Sends what is told to be final, until that is all, and waits for it.
    fn send(mut self, told: &Told) -> Result<Self> {
        let mut before = HowFar::From(usize::MAX);
        loop {
            let HowFar::From(from) = told.beyond(before) else { return Ok(self) };
            match &mut self {
                Self::Parts(reducing) => reducing.send_from(from)?,
                Self::Whole(summing) => summing.send_from(from)?,
            }
            if from == 0 {
                break;
            }
            before = HowFar::From(from);
        }
        match &mut self {
            Self::Parts(reducing) => reducing.take_all()?,
            Self::Whole(summing) => summing.take_all()?,
        }
        Ok(self)
    }
}

impl Told {
    fn tell(&self, news: HowFar) {
        let mut how_far = self.how_far.lock().unwrap_or_else(PoisonError::into_inner);
        *how_far = match (*how_far, news) {
            (HowFar::From(before), HowFar::From(now)) => HowFar::From(before.min(now)),
            _ => HowFar::Abandoned,
        };
        self.news.notify_all();
    }

    /// Waits until more is known than `before`.
    fn beyond(&self, before: HowFar) -> HowFar {
        let how_far = self.how_far.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.news.wait_while(how_far, |how_far| *how_far == before);
        *known.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reduction {
    /// Begins to send what is told to be final; nothing for one rank alone.
    pub(super) fn new(way: Option<Way>) -> Self {
        let how_far = Mutex::new(HowFar::From(usize::MAX));
        let told = Arc::new(Told { how_far, news: Condvar::new() });
        let sending = way.map(|way| {
            let told = Arc::clone(&told);
            std::thread::spawn(move || way.send(&told))
        });
        Self { told, sending }
    }

    /// Takes note that on this rank the gradients of all numbers from `from` on, end to end in the order of the parameters,
    /// do not change any more.
    pub fn final_from(&self, from: usize) {
        self.told.tell(HowFar::From(from));
    }

    /// Sends what is left, and waits for the sums of `gradients`, with which the reduction began.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn finish<G: Gradients>(mut self, gradients: &G) -> Result<Summed<'_, G>> {
        self.final_from(0);
        let way = match self.sending.take() {
            Some(sending) => {
                Some(sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
            }
            None => None,
        };
        if let Some(Way::Parts(reducing)) = way {
            let reduced = reducing.into_sums()?;
            return Ok(Summed { norm: reduced.norm, of: Sum::Part(reduced) });
        }
        Ok(Summed { norm: gradients.norm()?, of: Sum::Whole(gradients) })
    }
}

impl Drop for Reduction {
    fn drop(&mut self) {
        if self.sending.is_some() {
            self.told.tell(HowFar::Abandoned);
        }
    }
}
