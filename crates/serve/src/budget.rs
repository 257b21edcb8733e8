//! Budgets of memory that concurrent requests share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::client::Client;
use crate::refusal::Refusal;

/// A budget of bytes or pixels, counted in units of 1,024.
///
/// A client has a share, within which it gets whatever is free. Beyond its share it leaves a part of the budget free for
/// other clients.
#[derive(Debug)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all: u32,
    /// The share of a client.
    share: u32,
    held: Arc<Held>,
}

/// The units that each client holds.
#[derive(Debug, Default)]
struct Held(Mutex<HashMap<Client, u32>>);

/// A part of a budget, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    permit: Option<OwnedSemaphorePermit>,
    client: Option<(Client, Arc<Held>)>,
}

const UNIT: u64 = 1024;

/// The part of a budget that a client beyond its share leaves free: one of this many.
const RESERVE: u32 = 16;

/// How long an evicted request may take to return its part of a budget.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

impl Budget {
    /// A budget of `amount` without shares.
    pub(crate) fn new(amount: u64) -> Self {
        Self::with_share(amount, u64::MAX)
    }

    /// A budget of `amount`, of which a client's share is half, or the `largest` request if that is more.
    pub(crate) fn of_clients(amount: u64, largest: u64) -> Self {
        Self::with_share(amount, largest.max(amount / 2))
    }

    fn with_share(amount: u64, share: u64) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u64;
        let all = amount.div_ceil(UNIT).clamp(1, most) as u32;
        let share = share.div_ceil(UNIT).min(u64::from(all)) as u32;
        Self { units: Arc::new(Semaphore::new(all as usize)), all, share, held: Arc::default() }
    }

    /// A part of the budget for `client`, which is empty so far.
    pub(crate) fn for_client(&self, client: Client) -> Reserved {
        Reserved { permit: None, client: Some((client, self.held.clone())) }
    }

    /// Enlarges `reserved` to `amount` bytes.
    ///
    /// # Errors
    /// There is not as much left, or never.
    pub(crate) fn grow(&self, reserved: &mut Reserved, amount: u64) -> Result<(), Refusal> {
        let reserve = self.all / RESERVE;
        let most = self.share.max(self.all - reserve);
        if self.units(amount) > most {
            return Err(Refusal::beyond_request_memory(u64::from(most) * UNIT));
        }
        let more = self.missing(reserved, amount);
        if more == 0 {
            return Ok(());
        }
        let mut held = self.held.lock();
        if let Some((client, _)) = &reserved.client {
            let free = self.units.available_permits() as u32;
            let after = units_of(&held, *client).saturating_add(more);
            if after > self.share && free < more.saturating_add(reserve) {
                return Err(Refusal::over_share());
            }
        }
        let more = self.units.clone().try_acquire_many_owned(more);
        reserved.add(more.map_err(|_| Refusal::out_of_request_memory())?, &mut held);
        Ok(())
    }

    /// Enlarges `reserved` to `amount` bytes as soon as an evicted request has returned them.
    ///
    /// # Errors
    /// It did not.
    pub(crate) async fn grow_by_evicted(
        &self,
        reserved: &mut Reserved,
        amount: u64,
    ) -> Result<(), Refusal> {
        let more = self.units.clone().acquire_many_owned(self.missing(reserved, amount));
        match timeout(RELEASE_TIMEOUT, more).await {
            Ok(Ok(more)) => {
                reserved.add(more, &mut self.held.lock());
                Ok(())
            }
            _ => Err(Refusal::out_of_request_memory()),
        }
    }

    /// The amount that is reserved, in whole units.
    pub(crate) fn used(&self) -> u64 {
        (u64::from(self.all) - self.units.available_permits() as u64) * UNIT
    }

    /// Whether `client` would be within its share with `more` bytes.
    pub(crate) fn is_within_share(&self, client: Client, more: u64) -> bool {
        units_of(&self.held.lock(), client).saturating_add(self.units(more)) <= self.share
    }

    /// The bytes that `reserved` lacks of `amount`.
    pub(crate) fn missing_bytes(&self, reserved: &Reserved, amount: u64) -> u64 {
        u64::from(self.missing(reserved, amount)) * UNIT
    }

    fn missing(&self, reserved: &Reserved, amount: u64) -> u32 {
        self.units(amount).saturating_sub(reserved.units())
    }

    /// Waits for `amount`, or for the whole budget if that is less.
    pub(crate) async fn wait(&self, amount: u64) -> Reserved {
        let units = self.units(amount).min(self.all);
        // The semaphore is never closed.
        let permit = self.units.clone().acquire_many_owned(units).await.ok();
        Reserved { permit, client: None }
    }

    fn units(&self, amount: u64) -> u32 {
        u32::try_from(amount.div_ceil(UNIT)).unwrap_or(u32::MAX)
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<Client, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn units_of(held: &HashMap<Client, u32>, client: Client) -> u32 {
    held.get(&client).copied().unwrap_or(0)
}

impl Reserved {
    /// Another part of the same client, which is empty so far.
    pub(crate) fn another(&self) -> Self {
        Self { permit: None, client: self.client.clone() }
    }

    fn units(&self) -> u32 {
        self.permit.as_ref().map_or(0, |permit| permit.num_permits() as u32)
    }

    fn add(&mut self, more: OwnedSemaphorePermit, held: &mut HashMap<Client, u32>) {
        if let Some((client, _)) = &self.client {
            *held.entry(*client).or_default() += more.num_permits() as u32;
        }
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Some((client, held)) = &self.client else { return };
        let mut held = held.lock();
        if let Some(units) = held.get_mut(client) {
            *units -= self.units();
            if *units == 0 {
                held.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(last: u8) -> Client {
        Client::from(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn a_reservation_grows_up_to_the_budget_and_is_returned() {
        let budget = Budget::new(10 * UNIT);
        let (mut first, mut second) = (Reserved::default(), Reserved::default());
        assert_eq!(budget.grow(&mut first, 1), Ok(()));
        assert_eq!(budget.grow(&mut first, 7 * UNIT), Ok(()));
        let refused = budget.grow(&mut second, 3 * UNIT + 1);
        assert_eq!(refused, Err(Refusal::out_of_request_memory()));
        assert_eq!(budget.grow(&mut second, 3 * UNIT), Ok(()));
        assert_eq!(budget.used(), 10 * UNIT);
        drop(first);
        assert_eq!(budget.used(), 3 * UNIT);
        assert_eq!(budget.grow(&mut second, 10 * UNIT), Ok(()));
    }

    #[test]
    fn what_exceeds_the_whole_budget_is_not_to_be_retried() {
        let budget = Budget::new(10 * UNIT);
        let refused = budget.grow(&mut Reserved::default(), 10 * UNIT + 1).unwrap_err();
        assert_eq!(refused.status(), 413);
    }

    #[test]
    fn a_client_beyond_its_share_leaves_memory_for_others() {
        let budget = Budget::of_clients(160 * UNIT, 1);
        let mut first: Vec<Reserved> = (0..15).map(|_| budget.for_client(client(1))).collect();
        for reserved in &mut first {
            assert_eq!(budget.grow(reserved, 10 * UNIT), Ok(()));
        }
        let mut more = first[0].another();
        assert_eq!(budget.grow(&mut more, 1), Err(Refusal::over_share()));
        // Another client gets all of it, and another request of the first none.
        let mut second = budget.for_client(client(2));
        assert_eq!(budget.grow(&mut second, 10 * UNIT), Ok(()));
        drop(second);
        first.truncate(7);
        assert_eq!(budget.grow(&mut more, 10 * UNIT), Ok(()));
        drop((first, more));
        assert!(budget.held.lock().is_empty());
        assert_eq!(budget.units.available_permits(), 160);
    }

    #[test]
    fn within_its_share_a_client_gets_all_that_is_free() {
        let budget = Budget::of_clients(160 * UNIT, 1);
        let mut both = [1, 2].map(|last| budget.for_client(client(last)));
        for reserved in &mut both {
            assert_eq!(budget.grow(reserved, 80 * UNIT), Ok(()));
        }
        let refused = budget.grow(&mut budget.for_client(client(3)), 1);
        assert_eq!(refused, Err(Refusal::out_of_request_memory()));
    }

    #[test]
    fn the_largest_request_always_fits_and_a_larger_one_never() {
        let budget = Budget::of_clients(160 * UNIT, 158 * UNIT);
        let mut reserved = budget.for_client(client(1));
        assert_eq!(budget.grow(&mut reserved, 158 * UNIT), Ok(()));
        assert_eq!(budget.grow(&mut reserved, 159 * UNIT).unwrap_err().status(), 413);
    }

    #[tokio::test]
    async fn memory_of_an_evicted_request_is_passed_on() {
        let budget = Budget::of_clients(4 * UNIT, 1);
        let (mut evicted, mut other) = (budget.for_client(client(1)), budget.for_client(client(2)));
        budget.grow(&mut evicted, 3 * UNIT).unwrap();
        let (grown, ()) = tokio::join!(budget.grow_by_evicted(&mut other, 2 * UNIT), async {
            drop(evicted);
        });
        assert_eq!(grown, Ok(()));
        assert_eq!(budget.held.lock().get(&client(2)), Some(&2));
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
