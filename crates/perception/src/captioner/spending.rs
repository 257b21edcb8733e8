//! What replies have cost, over all runs, and a limit to it.
//!
//! Tokens are counted as the server reports them and never guessed: replies without a report are
//! counted as such. What a request will cost is not known before its reply; while a limit is set, room
//! for the dearest reply so far is kept for each request on its way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use embodied_r_data::Progress;
use embodied_r_openai::Usage;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::journal::Journal;
use crate::error::{Error, Result};

/// What a million tokens cost, in any currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// Of the prompts, images included.
    pub prompt: f64,
    /// Of the replies.
    pub completion: f64,
}

impl Prices {
    fn cost(&self, prompt_tokens: u64, completion_tokens: u64) -> f64 {
        (prompt_tokens as f64 * self.prompt + completion_tokens as f64 * self.completion) / 1e6
    }
}

/// Replies and what they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Replies that a model was asked for.
    pub replies: u64,
    /// Of these, those whose server did not report tokens.
    pub unreported: u64,
    /// Tokens of the prompts.
    pub prompt_tokens: u64,
    /// Tokens of the replies.
    pub completion_tokens: u64,
    /// What they cost by the prices; `None` without prices.
    pub cost: Option<f64>,
}

impl Totals {
    /// These and those of `other` together.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.replies += other.replies;
        self.unreported += other.unreported;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cost = self.cost.zip(other.cost).map(|(cost, more)| cost + more);
        self
    }

    fn add(&mut self, line: &Line) {
        self.replies += 1;
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

/// One reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    /// How many pictures the request held: one with two costs about twice as much.
    pictures: usize,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    /// By the prices of its time.
    cost: Option<f64>,
}

/// The account of an output folder.
#[derive(Debug)]
pub(super) struct Spending {
    journal: Journal,
    prices: Option<Prices>,
    max_cost: Option<f64>,
    account: Mutex<Account>,
    /// Rings when a request on its way has come back.
    settled: Notify,
}

#[derive(Debug, Default)]
struct Account {
    now: Totals,
    ever: Totals,
    /// The dearest reply so far, by the number of pictures.
    dearest: BTreeMap<usize, f64>,
    /// Requests on their way and the room that is kept for them.
    open: usize,
    kept: f64,
}

impl Account {
    fn add(&mut self, line: &Line) {
        self.ever.add(line);
        if let Some(cost) = line.cost {
            let dearest = self.dearest.entry(line.pictures).or_default();
            *dearest = dearest.max(cost);
        }
    }

    /// What a request may cost; `None` where nothing is known yet. Where no request had as many
    /// pictures, each one is taken to cost what it cost in another.
    fn estimate(&self, pictures: usize) -> Option<f64> {
        let of_others = || {
            let share = |(&n, cost): (&usize, &f64)| cost * pictures as f64 / n.max(1) as f64;
            self.dearest.iter().map(share).reduce(f64::max)
        };
        self.dearest.get(&pictures).copied().or_else(of_others)
    }
}

/// Room for a request on its way, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    spending: &'a Spending,
    pictures: usize,
    kept: f64,
}

impl Spending {
    /// Opens or makes the account at `path`, a file with one line per reply.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(super) fn open(
        path: &Path,
        prices: Option<Prices>,
        max_cost: Option<f64>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let (journal, lines) = Journal::open::<Line>(path)?;
        if !lines.broken.is_empty() {
            let (path, n) = (path.display(), lines.broken.len());
            progress.warn(&format!("`{path}` has {n} broken lines, which the totals lack"));
        }
        let cost = prices.map(|_| 0.0);
        let empty = Totals { cost, ..Totals::default() };
        let mut account = Account { now: empty, ever: empty, ..Account::default() };
        for (_, mut line) in lines.whole {
            line.cost = line.cost.or_else(|| cost_of(prices, &line));
            account.add(&line);
        }
        let account = Mutex::new(account);
        Ok(Self { journal, prices, max_cost, account, settled: Notify::new() })
    }

    /// Waits until a request with so many pictures fits under the limit.
    ///
    /// # Errors
    /// [`Error::Spent`] where it does not, and none that might turn out cheaper is on its way;
    /// [`Error::NoUsage`] where costs cannot be known.
    pub(super) async fn reserve(&self, pictures: usize) -> Result<Reservation<'_>> {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            // From here on no ring is missed.
            settled.as_mut().enable();
            if let Some(kept) = self.room(pictures)? {
                return Ok(Reservation { spending: self, pictures, kept });
            }
            settled.await;
        }
    }

    /// Keeps room for a request if there is enough; `None` asks to wait.
    fn room(&self, pictures: usize) -> Result<Option<f64>> {
        let mut account = self.lock();
        let estimate = account.estimate(pictures);
        let kept = estimate.unwrap_or(0.0);
        if let Some(max_cost) = self.max_cost {
            let spent = account.ever.cost.unwrap_or(0.0);
            if account.now.unreported > 0 {
                return Err(Error::NoUsage);
            }
            // The first request of all goes alone, to find out what one costs.
            let wait = estimate.is_none() && account.open > 0;
            if wait || spent + account.kept + kept > max_cost {
                return match account.open {
                    0 => Err(Error::Spent { spent, max_cost }),
                    _ => Ok(None),
                };
            }
        }
        account.open += 1;
        account.kept += kept;
        Ok(Some(kept))
    }

    /// What this run has taken, and all runs together.
    pub(super) fn totals(&self) -> (Totals, Totals) {
        let account = self.lock();
        (account.now, account.ever)
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// Writes down what the reply took, where the server reports it.
    ///
    /// # Errors
    /// The account cannot be written.
    pub(super) fn settle(self, usage: Option<Usage>) -> Result<()> {
        let mut line = Line {
            pictures: self.pictures,
            prompt_tokens: usage.map(|usage| usage.prompt_tokens),
            completion_tokens: usage.map(|usage| usage.completion_tokens),
            cost: None,
        };
        line.cost = cost_of(self.spending.prices, &line);
        let written = self.spending.journal.append(&line);
        let mut account = self.spending.lock();
        account.now.add(&line);
        account.add(&line);
        drop(account);
        written.map(drop)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut account = self.spending.lock();
        account.open -= 1;
        account.kept -= self.kept;
        if account.open == 0 {
            // Without what rounding has left.
            account.kept = 0.0;
        }
        drop(account);
        self.spending.settled.notify_waiters();
    }
}

fn cost_of(prices: Option<Prices>, line: &Line) -> Option<f64> {
    Some(prices?.cost(line.prompt_tokens?, line.completion_tokens?))
}

#[cfg(test)]
mod tests {
    use embodied_r_data::progress::Silent;

    use super::*;

    /// A thousand tokens of a prompt cost 1.
    const PRICES: Prices = Prices { prompt: 1000.0, completion: 2000.0 };

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn open(&self, prices: Option<Prices>, max_cost: Option<f64>) -> Spending {
            Spending::open(&self.0.path().join("usage.jsonl"), prices, max_cost, &Silent).unwrap()
        }
    }

    /// Whether a request fits now, and what it would be.
    fn fits(spending: &Spending, pictures: usize) -> Option<Reservation<'_>> {
        let kept = spending.room(pictures).unwrap()?;
        Some(Reservation { spending, pictures, kept })
    }

    fn usage(prompt_tokens: u64, completion_tokens: u64) -> Option<Usage> {
        Some(Usage { prompt_tokens, completion_tokens })
    }

    fn spend(spending: &Spending, pictures: usize, prompt: u64) {
        fits(spending, pictures).unwrap().settle(usage(prompt, 0)).unwrap();
    }

    #[test]
    fn totals_are_those_of_the_run_and_of_all_runs() {
        let place = Place::new();
        let first = place.open(Some(PRICES), None);
        fits(&first, 1).unwrap().settle(usage(500, 250)).unwrap();
        fits(&first, 1).unwrap().settle(None).unwrap();
        drop(first);
        let second = place.open(Some(PRICES), None);
        spend(&second, 1, 1000);
        let (now, ever) = second.totals();
        assert_eq!((now.replies, now.cost), (1, Some(1.0)));
        let expected = Totals {
            replies: 3,
            unreported: 1,
            prompt_tokens: 1500,
            completion_tokens: 250,
            cost: Some(2.0),
        };
        assert_eq!(ever, expected);
    }

    #[test]
    fn replies_from_before_there_were_prices_are_priced_by_those_of_now() {
        let place = Place::new();
        let unpriced = place.open(None, None);
        spend(&unpriced, 1, 3000);
        assert_eq!(unpriced.totals().1.cost, None);
        drop(unpriced);
        assert_eq!(place.open(Some(PRICES), None).totals().1.cost, Some(3.0));
    }

    #[test]
    fn other_prices_do_not_change_what_was_paid() {
        let place = Place::new();
        spend(&place.open(Some(PRICES), None), 1, 1000);
        let dearer = Prices { prompt: 9000.0, ..PRICES };
        assert_eq!(place.open(Some(dearer), None).totals().1.cost, Some(1.0));
    }

    #[test]
    fn the_first_request_under_a_limit_goes_alone() {
        let place = Place::new();
        let spending = place.open(Some(PRICES), Some(10.0));
        let first = fits(&spending, 1).unwrap();
        assert!(fits(&spending, 1).is_none());
        first.settle(usage(1000, 0)).unwrap();
        let others: Vec<_> = std::iter::from_fn(|| fits(&spending, 1)).collect();
        assert_eq!(others.len(), 9);
    }

    #[test]
    fn two_pictures_are_taken_to_cost_twice_as_much_as_one() {
        let place = Place::new();
        let spending = place.open(Some(PRICES), Some(10.0));
        spend(&spending, 1, 1000);
        assert_eq!(std::iter::from_fn(|| fits(&spending, 2)).collect::<Vec<_>>().len(), 4);
    }

    #[test]
    fn a_limit_is_kept_over_several_runs() {
        let place = Place::new();
        let first = place.open(Some(PRICES), Some(3.0));
        (0..3).for_each(|_| spend(&first, 1, 1000));
        assert!(matches!(first.room(1), Err(Error::Spent { spent: 3.0, .. })));
        drop(first);
        assert!(place.open(Some(PRICES), Some(3.0)).room(1).is_err());
        let raised = place.open(Some(PRICES), Some(5.0));
        (0..2).for_each(|_| spend(&raised, 1, 1000));
        assert!(raised.room(1).is_err());
    }

    #[test]
    fn a_limit_needs_servers_that_report_tokens() {
        let place = Place::new();
        let spending = place.open(Some(PRICES), Some(3.0));
        fits(&spending, 1).unwrap().settle(None).unwrap();
        assert!(matches!(spending.room(1), Err(Error::NoUsage)));
    }

    #[tokio::test]
    async fn a_request_waits_for_one_that_may_turn_out_cheaper() {
        let place = Place::new();
        let spending = std::sync::Arc::new(place.open(Some(PRICES), Some(2.0)));
        spend(&spending, 1, 1000);
        let dear = fits(&spending, 1).unwrap();
        let waiting = tokio::spawn({
            let spending = std::sync::Arc::clone(&spending);
            async move { spending.reserve(1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        dear.settle(usage(0, 0)).unwrap();
        waiting.await.unwrap().unwrap();
    }
}
