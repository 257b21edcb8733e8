//! Budgets of memory that concurrent requests share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

/// A budget of bytes or pixels, counted in units of 1,024.
#[derive(Debug)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all: u32,
}

/// A part of a budget, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Reserved(Option<OwnedSemaphorePermit>);

const UNIT: u64 = 1024;

impl Budget {
    /// A budget of `amount`.
    pub(crate) fn new(amount: u64) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u64;
        let all = amount.div_ceil(UNIT).clamp(1, most) as u32;
        Self { units: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Enlarges `reserved` to `amount` bytes.
    ///
    /// # Errors
    /// There is not as much left, or never.
    pub(crate) fn grow(&self, reserved: &mut Reserved, amount: u64) -> Result<(), Refusal> {
        if self.units(amount) > self.all {
            return Err(Refusal::beyond_request_memory(u64::from(self.all) * UNIT));
        }
        let held = reserved.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.units(amount).saturating_sub(held as u32);
        if more == 0 {
            return Ok(());
        }
        let more = self.units.clone().try_acquire_many_owned(more);
        let more = more.map_err(|_| Refusal::out_of_request_memory())?;
        match &mut reserved.0 {
            Some(permit) => permit.merge(more),
            None => reserved.0 = Some(more),
        }
        Ok(())
    }

    /// Waits for `amount`, or for the whole budget if that is less.
    pub(crate) async fn wait(&self, amount: u64) -> Reserved {
        let units = self.units(amount).min(self.all);
        // The semaphore is never closed.
        Reserved(self.units.clone().acquire_many_owned(units).await.ok())
    }

    fn units(&self, amount: u64) -> u32 {
        u32::try_from(amount.div_ceil(UNIT)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_grows_up_to_the_budget_and_is_returned() {
        let budget = Budget::new(10 * UNIT);
        let (mut first, mut second) = (Reserved::default(), Reserved::default());
        assert_eq!(budget.grow(&mut first, 1), Ok(()));
        assert_eq!(budget.grow(&mut first, 7 * UNIT), Ok(()));
        let refused = budget.grow(&mut second, 3 * UNIT + 1);
        assert_eq!(refused, Err(Refusal::out_of_request_memory()));
        assert_eq!(budget.grow(&mut second, 3 * UNIT), Ok(()));
        drop(first);
        assert_eq!(budget.grow(&mut second, 10 * UNIT), Ok(()));
    }

    #[test]
    fn what_exceeds_the_whole_budget_is_not_to_be_retried() {
        let budget = Budget::new(10 * UNIT);
        let refused = budget.grow(&mut Reserved::default(), 10 * UNIT + 1).unwrap_err();
        assert_eq!(refused.status(), 413);
    }

    #[tokio::test]
    async fn more_than_the_budget_waits_for_all_of_it() {
        let budget = Budget::new(4 * UNIT);
        let all = budget.wait(100 * UNIT).await;
        assert!(budget.grow(&mut Reserved::default(), 1).is_err());
        drop(all);
        assert_eq!(budget.grow(&mut Reserved::default(), 4 * UNIT), Ok(()));
    }
}
