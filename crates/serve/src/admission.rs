//! Admission control: limits the running sequences plus a bounded queue.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::refusal::Refusal;

/// The slots for sequences.
#[derive(Debug)]
pub(crate) struct Admission {
    slots: Arc<Semaphore>,
    capacity: usize,
}

/// The slots of a request, held until its last event is sent; a cancelled request leaves the engine by the next step.
pub(crate) type Permit = Arc<OwnedSemaphorePermit>;

impl Admission {
    /// Slots for `max_num_seqs` running and `max_queue` queued sequences.
    pub(crate) fn new(max_num_seqs: usize, max_queue: usize) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let capacity = max_num_seqs.saturating_add(max_queue).min(most);
        Self { slots: Arc::new(Semaphore::new(capacity)), capacity }
    }

    /// Admits a request of `sequences`.
    ///
    /// # Errors
    /// The request exceeds the capacity, the queue is full, or the server is shutting down.
    pub(crate) fn admit(&self, sequences: usize) -> Result<Permit, Refusal> {
        let permits = match u32::try_from(sequences) {
            Ok(permits) if sequences <= self.capacity => permits,
            _ => return Err(Refusal::too_many_sequences(sequences, self.capacity)),
        };
        match self.slots.clone().try_acquire_many_owned(permits) {
            Ok(permit) => Ok(Arc::new(permit)),
            Err(TryAcquireError::NoPermits) => Err(Refusal::queue_full()),
            Err(TryAcquireError::Closed) => Err(Refusal::stopping()),
        }
    }

    /// Admits no further requests.
    pub(crate) fn close(&self) {
        self.slots.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.slots.is_closed()
    }

    /// The admitted sequences, running or queued.
    pub(crate) fn admitted(&self) -> usize {
        self.capacity - self.slots.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_admits_nothing_until_a_slot_is_free() {
        let admission = Admission::new(2, 1);
        let first = admission.admit(2).unwrap();
        assert_eq!(admission.admit(2).unwrap_err().status(), 429);
        drop(first);
        assert!(admission.admit(2).is_ok());
    }

    #[test]
    fn a_request_beyond_the_capacity_is_refused() {
        let refusal = Admission::new(2, 1).admit(4).unwrap_err();
        assert_eq!(refusal.status(), 400);
    }

    #[test]
    fn a_closed_server_admits_nothing_and_still_counts_its_sequences() {
        let admission = Admission::new(2, 1);
        let permit = admission.admit(2).unwrap();
        admission.close();
        assert_eq!(admission.admit(1).unwrap_err().status(), 503);
        assert_eq!(admission.admitted(), 2);
        drop(permit);
        assert_eq!(admission.admitted(), 0);
    }
}
