//! Gradients of all ranks together, and on their way there.

use super::reducing::{Reduced, Reducing, Summing};
use crate::error::{Error, Result};
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
/// Every rank sends them in the same order, the last first.
#[must_use]
pub struct Reduction<'a> {
    of: Way<'a>,
    /// What has gone wrong on the way; it is told at the end.
    fault: Option<Error>,
}

enum Way<'a> {
    /// One rank has the sums already.
    None,
    Parts(Reducing<'a>),
    Whole(Summing),
}

impl<'a> From<Reducing<'a>> for Reduction<'a> {
    fn from(reducing: Reducing<'a>) -> Self {
        Self { of: Way::Parts(reducing), fault: None }
    }
}

impl From<Summing> for Reduction<'_> {
    fn from(summing: Summing) -> Self {
        Self { of: Way::Whole(summing), fault: None }
    }
}

impl Reduction<'_> {
    pub(super) fn none() -> Self {
        Self { of: Way::None, fault: None }
    }

    /// Takes note that on this rank the gradients of all numbers from `from` on, end to end in the order of the parameters,
    /// do not change any more.
    pub fn final_from(&mut self, from: usize) {
        if self.fault.is_some() {
            return;
        }
        let sent = match &mut self.of {
            Way::None => Ok(()),
            Way::Parts(reducing) => reducing.send_from(from),
            Way::Whole(summing) => summing.send_from(from),
        };
        self.fault = sent.err();
    }

    /// Sends what is left, and waits for the sums of `gradients`, with which the reduction began.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn finish<G: Gradients>(self, gradients: &G) -> Result<Summed<'_, G>> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match self.of {
            Way::None => {}
            Way::Parts(reducing) => {
                let reduced = reducing.finish()?;
                return Ok(Summed { norm: reduced.norm, of: Sum::Part(reduced) });
            }
            Way::Whole(summing) => summing.finish()?,
        }
        Ok(Summed { norm: gradients.norm()?, of: Sum::Whole(gradients) })
    }
}
