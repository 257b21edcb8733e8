//! The cost of completions over all runs, and its limit.
//!
//! Tokens are counted as reported by the server and never estimated; completions without usage are
//! counted separately. A request's cost is unknown until its completion arrives, so under a limit the
//! highest cost so far is reserved for each request in flight.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use embodied_r_data::Progress;
use embodied_r_files::journal::{self, Journal};
use embodied_r_openai::Usage;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::error::{Error, Result};

/// Prices of a million tokens, in any currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenPrices {
    /// Prompt tokens, images included.
    pub prompt: f64,
    /// Completion tokens.
    pub completion: f64,
}

impl TokenPrices {
    fn cost(&self, prompt_tokens: u64, completion_tokens: u64) -> f64 {
        (prompt_tokens as f64 * self.prompt + completion_tokens as f64 * self.completion) / 1e6
    }
}

/// Token usage and cost of completions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageTotals {
    /// Completions.
    #[serde(rename = "replies")]
    pub completions: u64,
    /// Completions without reported usage.
    pub unreported: u64,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Completion tokens.
    pub completion_tokens: u64,
    /// Their cost; `None` without prices.
    pub cost: Option<f64>,
}

impl UsageTotals {
    /// The sum of these totals and `other`.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.completions += other.completions;
        self.unreported += other.unreported;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cost = self.cost.zip(other.cost).map(|(cost, more)| cost + more);
        self
    }

    fn add(&mut self, line: &Line) {
        self.completions += 1;
        match (line.prompt_tokens, line.completion_tokens) {
            (Some(prompt), Some(completion)) => {
                self.prompt_tokens += prompt;
                self.completion_tokens += completion;
            }
            _ => self.unreported += 1,
        }
        if let (Some(total), Some(cost)) = (&mut self.cost, line.cost) {
            *total += cost;
        }
    }
}

/// One completion.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    /// Images in the request, which dominate its cost.
    #[serde(rename = "pictures")]
    images: usize,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    /// By the prices at the time.
    cost: Option<f64>,
}

/// Tracks the cost of all runs with one output folder.
#[derive(Debug)]
pub struct CostTracker {
    journal: Mutex<Journal>,
    prices: Option<TokenPrices>,
    max_cost: Option<f64>,
    ledger: Mutex<Ledger>,
    /// Notified when a request in flight returns.
    settled: Notify,
}

#[derive(Debug, Default)]
struct Ledger {
    this_run: UsageTotals,
    all_runs: UsageTotals,
    /// The highest cost of a completion so far, by the number of images.
    max_cost_by_images: BTreeMap<usize, f64>,
    /// Requests in flight, and the cost reserved for them.
    in_flight: usize,
    reserved: f64,
}

impl Ledger {
    fn add(&mut self, line: &Line) {
        self.all_runs.add(line);
        if let Some(cost) = line.cost {
            let max_cost = self.max_cost_by_images.entry(line.images).or_default();
            *max_cost = max_cost.max(cost);
        }
    }

    /// Upper estimate of a request's cost; `None` without data. If no request had as many images, the
    /// cost is extrapolated per image.
    fn estimate(&self, images: usize) -> Option<f64> {
        let extrapolated = || {
            let scaled = |(&n, cost): (&usize, &f64)| cost * images as f64 / n.max(1) as f64;
            self.max_cost_by_images.iter().map(scaled).reduce(f64::max)
        };
        self.max_cost_by_images.get(&images).copied().or_else(extrapolated)
    }
}

/// The cost reserved for a request in flight, released on drop.
#[derive(Debug)]
pub struct CostReservation<'a> {
    tracker: &'a CostTracker,
    images: usize,
    reserved: f64,
}

impl CostTracker {
    /// Opens or creates the usage file at `path`, with one line per completion.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(
        path: &Path,
        prices: Option<TokenPrices>,
        max_cost: Option<f64>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        // Replicas of a run share the file.
        let (journal, text) = Journal::share(path)?;
        let cost = prices.map(|_| 0.0);
        let empty = UsageTotals { cost, ..UsageTotals::default() };
        let mut ledger = Ledger { this_run: empty, all_runs: empty, ..Ledger::default() };
        let mut malformed = 0;
        for line in journal::lines(&text) {
            let Ok(mut line) = line.parse::<Line>() else {
                malformed += 1;
                continue;
            };
            line.cost = line.cost.or_else(|| cost_of(prices, &line));
            ledger.add(&line);
        }
        if malformed > 0 {
            let path = path.display();
            progress
                .warn(&format!("`{path}` has {malformed} malformed lines, which the totals omit"));
        }
        let (journal, ledger) = (Mutex::new(journal), Mutex::new(ledger));
        Ok(Self { journal, prices, max_cost, ledger, settled: Notify::new() })
    }

    /// Waits until a request with this many images fits under the cost limit.
    ///
    /// # Errors
    /// [`Error::CostLimit`] if it does not fit and no request in flight could release a reservation;
    /// [`Error::NoUsage`] if the server does not report usage.
    pub async fn reserve(&self, images: usize) -> Result<CostReservation<'_>> {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            // From here on no notification is missed.
            settled.as_mut().enable();
            if let Some(reserved) = self.try_reserve(images)? {
                return Ok(CostReservation { tracker: self, images, reserved });
            }
            settled.await;
        }
    }

    /// Reserves the cost of a request if it fits; `None` means wait.
    fn try_reserve(&self, images: usize) -> Result<Option<f64>> {
        let mut ledger = self.lock();
        let estimate = ledger.estimate(images);
        let reserved = estimate.unwrap_or(0.0);
        if let Some(max_cost) = self.max_cost {
            let spent = ledger.all_runs.cost.unwrap_or(0.0);
            if ledger.this_run.unreported > 0 {
                return Err(Error::NoUsage);
            }
            // The first request is sent alone, to learn the cost of one.
            let wait = estimate.is_none() && ledger.in_flight > 0;
            if wait || spent + ledger.reserved + reserved > max_cost {
                return match ledger.in_flight {
                    0 => Err(Error::CostLimit { spent, max_cost }),
                    _ => Ok(None),
                };
            }
        }
        ledger.in_flight += 1;
        ledger.reserved += reserved;
        Ok(Some(reserved))
    }

    /// The totals of this run and of all runs.
    pub fn totals(&self) -> (UsageTotals, UsageTotals) {
        let ledger = self.lock();
        (ledger.this_run, ledger.all_runs)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CostReservation<'_> {
    /// Records a completion's usage, if the server reports it.
    ///
    /// # Errors
    /// The usage file cannot be written.
    pub fn settle(self, usage: Option<Usage>) -> Result<()> {
        let mut line = Line {
            images: self.images,
            prompt_tokens: usage.map(|usage| usage.prompt_tokens),
            completion_tokens: usage.map(|usage| usage.completion_tokens),
            cost: None,
        };
        line.cost = cost_of(self.tracker.prices, &line);
        let journal = &self.tracker.journal;
        let written = journal.lock().unwrap_or_else(PoisonError::into_inner).append(&line);
        let mut ledger = self.tracker.lock();
        ledger.this_run.add(&line);
        ledger.add(&line);
        drop(ledger);
        written?;
        Ok(())
    }
}

impl Drop for CostReservation<'_> {
    fn drop(&mut self) {
        let mut ledger = self.tracker.lock();
        ledger.in_flight -= 1;
        ledger.reserved -= self.reserved;
        if ledger.in_flight == 0 {
            // Drop the rounding error.
            ledger.reserved = 0.0;
        }
        drop(ledger);
        self.tracker.settled.notify_waiters();
    }
}

fn cost_of(prices: Option<TokenPrices>, line: &Line) -> Option<f64> {
    Some(prices?.cost(line.prompt_tokens?, line.completion_tokens?))
}

#[cfg(test)]
mod tests {
    use embodied_r_data::progress::Silent;

    use super::*;

    /// A thousand prompt tokens cost 1.
    const PRICES: TokenPrices = TokenPrices { prompt: 1000.0, completion: 2000.0 };

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn open(&self, prices: Option<TokenPrices>, max_cost: Option<f64>) -> CostTracker {
            CostTracker::open(&self.0.path().join("usage.jsonl"), prices, max_cost, &Silent)
                .unwrap()
        }
    }

    /// A reservation, if the request fits now.
    fn fits(tracker: &CostTracker, images: usize) -> Option<CostReservation<'_>> {
        let reserved = tracker.try_reserve(images).unwrap()?;
        Some(CostReservation { tracker, images, reserved })
    }

    fn usage(prompt_tokens: u64, completion_tokens: u64) -> Option<Usage> {
        Some(Usage { prompt_tokens, completion_tokens })
    }

    fn spend(tracker: &CostTracker, images: usize, prompt: u64) {
        fits(tracker, images).unwrap().settle(usage(prompt, 0)).unwrap();
    }

    #[test]
    fn totals_are_kept_per_run_and_over_all_runs() {
        let fixture = Fixture::new();
        let first = fixture.open(Some(PRICES), None);
        fits(&first, 1).unwrap().settle(usage(500, 250)).unwrap();
        fits(&first, 1).unwrap().settle(None).unwrap();
        drop(first);
        let second = fixture.open(Some(PRICES), None);
        spend(&second, 1, 1000);
        let (this_run, all_runs) = second.totals();
        assert_eq!((this_run.completions, this_run.cost), (1, Some(1.0)));
        let expected = UsageTotals {
            completions: 3,
            unreported: 1,
            prompt_tokens: 1500,
            completion_tokens: 250,
            cost: Some(2.0),
        };
        assert_eq!(all_runs, expected);
    }

    #[test]
    fn unpriced_completions_use_the_current_prices() {
        let fixture = Fixture::new();
        let unpriced = fixture.open(None, None);
        spend(&unpriced, 1, 3000);
        assert_eq!(unpriced.totals().1.cost, None);
        drop(unpriced);
        assert_eq!(fixture.open(Some(PRICES), None).totals().1.cost, Some(3.0));
    }

    #[test]
    fn changed_prices_do_not_change_past_costs() {
        let fixture = Fixture::new();
        spend(&fixture.open(Some(PRICES), None), 1, 1000);
        let higher = TokenPrices { prompt: 9000.0, ..PRICES };
        assert_eq!(fixture.open(Some(higher), None).totals().1.cost, Some(1.0));
    }

    #[test]
    fn the_first_request_under_a_limit_is_sent_alone() {
        let fixture = Fixture::new();
        let tracker = fixture.open(Some(PRICES), Some(10.0));
        let first = fits(&tracker, 1).unwrap();
        assert!(fits(&tracker, 1).is_none());
        first.settle(usage(1000, 0)).unwrap();
        let others: Vec<_> = std::iter::from_fn(|| fits(&tracker, 1)).collect();
        assert_eq!(others.len(), 9);
    }

    #[test]
    fn the_cost_of_two_images_is_extrapolated_from_one() {
        let fixture = Fixture::new();
        let tracker = fixture.open(Some(PRICES), Some(10.0));
        spend(&tracker, 1, 1000);
        assert_eq!(std::iter::from_fn(|| fits(&tracker, 2)).collect::<Vec<_>>().len(), 4);
    }

    #[test]
    fn the_limit_holds_over_several_runs() {
        let fixture = Fixture::new();
        let first = fixture.open(Some(PRICES), Some(3.0));
        (0..3).for_each(|_| spend(&first, 1, 1000));
        assert!(matches!(first.try_reserve(1), Err(Error::CostLimit { spent: 3.0, .. })));
        drop(first);
        assert!(fixture.open(Some(PRICES), Some(3.0)).try_reserve(1).is_err());
        let raised = fixture.open(Some(PRICES), Some(5.0));
        (0..2).for_each(|_| spend(&raised, 1, 1000));
        assert!(raised.try_reserve(1).is_err());
    }

    #[test]
    fn a_limit_requires_reported_usage() {
        let fixture = Fixture::new();
        let tracker = fixture.open(Some(PRICES), Some(3.0));
        fits(&tracker, 1).unwrap().settle(None).unwrap();
        assert!(matches!(tracker.try_reserve(1), Err(Error::NoUsage)));
    }

    #[tokio::test]
    async fn a_request_waits_for_a_reservation_to_be_released() {
        let fixture = Fixture::new();
        let tracker = std::sync::Arc::new(fixture.open(Some(PRICES), Some(2.0)));
        spend(&tracker, 1, 1000);
        let in_flight = fits(&tracker, 1).unwrap();
        let waiting = tokio::spawn({
            let tracker = std::sync::Arc::clone(&tracker);
            async move { tracker.reserve(1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        in_flight.settle(usage(0, 0)).unwrap();
        waiting.await.unwrap().unwrap();
    }
}
