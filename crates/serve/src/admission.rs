//! How many sequences are taken in at once: those that are decoded, and a queue of bounded length.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::refusal::Refusal;

/// Places for sequences.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    capacity: usize,
}

/// Places that a request holds until nothing of it is left in the engine.
pub(crate) type Places = Arc<OwnedSemaphorePermit>;

impl Admission {
    /// Places for `max_num_seqs` sequences that run and `max_queue` that wait.
    pub(crate) fn new(max_num_seqs: usize, max_queue: usize) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let capacity = max_num_seqs.saturating_add(max_queue).min(most);
        Self { places: Arc::new(Semaphore::new(capacity)), capacity }
    }

    /// Places for a request of `sequences`.
    ///
    /// # Errors
    /// There will never be so many places, there are not now, or the server is about to stop.
    pub(crate) fn admit(&self, sequences: usize) -> Result<Places, Refusal> {
        let wanted = match u32::try_from(sequences) {
            Ok(wanted) if sequences <= self.capacity => wanted,
            _ => return Err(Refusal::too_many_sequences(sequences, self.capacity)),
        };
        match self.places.clone().try_acquire_many_owned(wanted) {
            Ok(places) => Ok(Arc::new(places)),
            Err(TryAcquireError::NoPermits) => Err(Refusal::queue_full()),
            Err(TryAcquireError::Closed) => Err(Refusal::stopping()),
        }
    }

    /// Takes nothing in from now on.
    pub(crate) fn close(&self) {
        self.places.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.places.is_closed()
    }

    /// Sequences that hold a place.
    pub(crate) fn taken(&self) -> usize {
        self.capacity - self.places.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_nothing_until_a_place_is_free() {
        let admission = Admission::new(2, 1);
        let first = admission.admit(2).unwrap();
        assert_eq!(admission.admit(2).unwrap_err().status(), 429);
        drop(first);
        assert!(admission.admit(2).is_ok());
    }

    #[test]
    fn a_request_that_never_fits_is_told_so() {
        let refusal = Admission::new(2, 1).admit(4).unwrap_err();
        assert_eq!(refusal.status(), 400);
    }

    #[test]
    fn a_closed_server_takes_nothing_and_still_counts_what_it_has() {
        let admission = Admission::new(2, 1);
        let places = admission.admit(2).unwrap();
        admission.close();
        assert_eq!(admission.admit(1).unwrap_err().status(), 503);
        assert_eq!(admission.taken(), 2);
        drop(places);
        assert_eq!(admission.taken(), 0);
    }
}
