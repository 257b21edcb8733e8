//! Load balancing: which endpoint a request goes to, and when.
//!
//! Among the endpoints available now, those that failed the request least often are preferred; smooth
//! weighted round robin decides between them. An endpoint is unavailable during its `Retry-After`
//! ([`Permit::block_until`]), while its [`CircuitBreaker`] is open, and at its [`ConcurrencyLimit`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::circuit_breaker::{Admission, CircuitBreaker};
use crate::concurrency::ConcurrencyLimit;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};

/// All endpoints and their state.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoints: Vec<Endpoint>,
    states: Mutex<Vec<State>>,
    /// Notified whenever another endpoint may have become available.
    changed: Notify,
    policy: RetryPolicy,
}

/// How long and how often to retry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// The circuit breaker's first open time.
    pub(crate) initial_backoff: Duration,
    /// The circuit breaker's longest open time.
    pub(crate) max_backoff: Duration,
    /// The longest `Retry-After` that a request waits for.
    pub(crate) max_retry_after: Duration,
    /// Failures after which a request is given up.
    pub(crate) max_retries: u32,
}

/// State of one endpoint.
#[derive(Debug)]
struct State {
    limit: ConcurrencyLimit,
    breaker: CircuitBreaker,
    /// End of the endpoint's `Retry-After`; no request is sent before.
    blocked_until: Option<Instant>,
    /// Excluded for good, since it rejects every request.
    disabled: bool,
    /// Smooth weighted round robin: how far the endpoint is behind its share.
    current_weight: f64,
    /// All failed probes so far.
    failed_probes: u32,
}

/// What a response, or its absence, says about the endpoint.
#[derive(Debug)]
pub(crate) enum ResponseClass {
    /// The request succeeded.
    Success,
    /// The endpoint answers, but rejects this request.
    Rejected,
    /// The endpoint is overloaded (429).
    RateLimited,
    /// The endpoint failed for this reason.
    Failed(String),
    /// The endpoint could not be reached, or broke off; its load is not the cause.
    Unreachable(String),
}

/// One request's earlier attempts.
#[derive(Debug)]
pub(crate) struct AttemptHistory {
    /// Failures of the request, by endpoint.
    failures: Vec<u32>,
    /// End of the request's back-off, by endpoint.
    ready: Vec<Option<Instant>>,
    /// Failed probes before the request began, plus those that were the request itself, by endpoint.
    probes: Vec<u32>,
}

impl AttemptHistory {
    /// Counts a failure and returns the endpoint's failures of this request.
    pub(crate) fn failed(&mut self, endpoint: usize, probe: bool) -> u32 {
        self.probes[endpoint] += u32::from(probe);
        self.failures[endpoint] += 1;
        self.failures[endpoint]
    }

    /// Sends this request to `endpoint` no sooner than at `ready`.
    pub(crate) fn wait(&mut self, endpoint: usize, ready: Instant) {
        self.ready[endpoint] = Some(ready);
    }
}

/// Where to send a request now, or how long to wait.
enum Selection<'a> {
    Now(Permit<'a>),
    /// Wait until this moment at most, or until the state of an endpoint changes.
    Later(Option<Instant>),
}

impl Pool {
    /// `concurrency` is split over the endpoints by weight, rounded up.
    pub(crate) fn new(endpoints: Vec<Endpoint>, concurrency: usize, policy: RetryPolicy) -> Self {
        let total: f64 = endpoints.iter().map(|endpoint| endpoint.weight).sum();
        let max = match concurrency {
            usize::MAX => f64::INFINITY,
            bounded => bounded as f64,
        };
        let state = |endpoint: &Endpoint| State {
            limit: ConcurrencyLimit::new((max * endpoint.weight / total).ceil()),
            breaker: CircuitBreaker::default(),
            blocked_until: None,
            disabled: false,
            current_weight: 0.0,
            failed_probes: 0,
        };
        let states = Mutex::new(endpoints.iter().map(state).collect());
        Self { endpoints, states, changed: Notify::new(), policy }
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The empty history of a new request.
    pub(crate) fn history(&self) -> AttemptHistory {
        let states = self.lock();
        AttemptHistory {
            failures: vec![0; states.len()],
            ready: vec![None; states.len()],
            probes: states.iter().map(|state| state.failed_probes).collect(),
        }
    }

    /// Waits for an available endpoint.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if every endpoint has failed too often, or its `Retry-After` is too long.
    pub(crate) async fn acquire(&self, history: &AttemptHistory) -> Result<Permit<'_>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no notification is missed.
            changed.as_mut().enable();
            match self.select(history, Instant::now())? {
                Selection::Now(permit) => return Ok(permit),
                Selection::Later(None) => changed.await,
                Selection::Later(Some(moment)) => {
                    // Whichever comes first.
                    let _ = tokio::time::timeout_at(moment.into(), changed).await;
                }
            }
        }
    }

    fn select(&self, history: &AttemptHistory, now: Instant) -> Result<Selection<'_>> {
        let mut states = self.lock();
        self.check_retry_after(&states, now)?;
        self.check_health(&states, history)?;
        let mut soonest: Option<Instant> = None;
        let mut available = Vec::new();
        for (i, state) in states.iter().enumerate().filter(|(_, state)| !state.disabled) {
            let (from, has_capacity) = match state.breaker.admission() {
                Admission::All => (None, state.limit.has_capacity()),
                Admission::ProbeAfter(moment) => (Some(moment), true),
                Admission::None => (None, false),
            };
            match from.max(state.blocked_until).max(history.ready[i]) {
                Some(moment) if moment > now => {
                    soonest = Some(soonest.map_or(moment, |other| other.min(moment)));
                }
                _ if has_capacity => available.push(i),
                // A request that returns notifies us.
                _ => {}
            }
        }
        if let Some(index) = next_endpoint(&mut states, &self.endpoints, history, &available) {
            let generation = states[index].limit.acquire();
            let probe = states[index].breaker.on_send();
            return Ok(Selection::Now(Permit {
                pool: self,
                index,
                generation,
                probe,
                reported: false,
            }));
        }
        Ok(Selection::Later(soonest))
    }

    /// Fails if all circuits are open and the retries are used up. Failed probes of other requests
    /// count too, so that a thousand requests need not try a dead endpoint one after the other.
    fn check_health(&self, states: &[State], history: &AttemptHistory) -> Result<()> {
        let enabled = || states.iter().enumerate().filter(|(_, state)| !state.disabled);
        let failing = enabled().map(|(i, state)| Some((i, state.breaker.failure()?)));
        let Some(failing) = failing.collect::<Option<Vec<_>>>() else { return Ok(()) };
        let probes =
            enabled().map(|(i, state)| state.failed_probes.saturating_sub(history.probes[i]));
        let failures: u32 = history.failures.iter().sum::<u32>() + probes.min().unwrap_or(0);
        match failing.first() {
            Some((i, (in_a_row, _, reason))) if failures > self.policy.max_retries => {
                let url = self.endpoints[*i].name.clone();
                let reason = format!("it has failed {in_a_row} times in a row: {reason}");
                Err(Error::Unavailable { url, reason })
            }
            _ => Ok(()),
        }
    }

    /// Fails if every endpoint's `Retry-After` exceeds the limit.
    fn check_retry_after(&self, states: &[State], now: Instant) -> Result<()> {
        let enabled = states.iter().zip(&self.endpoints).filter(|(state, _)| !state.disabled);
        let wait = |state: &State| state.blocked_until.map_or(Duration::ZERO, |until| until - now);
        let Some((wait, url)) = enabled.map(|(state, at)| (wait(state), &at.name)).min() else {
            return Ok(());
        };
        if wait <= self.policy.max_retry_after {
            return Ok(());
        }
        let reason = format!("its `Retry-After` ends in {} s", wait.as_secs());
        Err(Error::Unavailable { url: url.clone(), reason })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint among `available` that comes next. Those that failed the request least often are
/// preferred; among them, smooth weighted round robin interleaves the endpoints evenly.
fn next_endpoint(
    states: &mut [State],
    endpoints: &[Endpoint],
    history: &AttemptHistory,
    available: &[usize],
) -> Option<usize> {
    let fewest = available.iter().map(|&i| history.failures[i]).min()?;
    let best: Vec<usize> =
        available.iter().copied().filter(|&i| history.failures[i] == fewest).collect();
    for &i in &best {
        states[i].current_weight += endpoints[i].weight;
    }
    let chosen = best.iter().copied().reduce(|a, b| {
        match states[b].current_weight > states[a].current_weight {
            true => b,
            false => a,
        }
    })?;
    states[chosen].current_weight -= best.iter().map(|&i| endpoints[i].weight).sum::<f64>();
    Some(chosen)
}

/// Permission to send one request to an endpoint, released on drop.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    pool: &'a Pool,
    index: usize,
    generation: u64,
    probe: bool,
    reported: bool,
}

impl Permit<'_> {
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.pool.endpoints[self.index]
    }

    /// Sends no request to the endpoint before `until`, or before a later moment set earlier.
    pub(crate) fn block_until(&self, until: Instant) {
        let mut states = self.pool.lock();
        let blocked = &mut states[self.index].blocked_until;
        *blocked = (*blocked).max(Some(until));
    }

    /// Excludes the endpoint from now on, if there is another one. Returns whether there is.
    pub(crate) fn disable(&self) -> bool {
        let mut states = self.pool.lock();
        let others = states.iter().enumerate().any(|(i, state)| i != self.index && !state.disabled);
        states[self.index].disabled |= others;
        others
    }

    /// Reports the request's result. Returns whether the request was a probe that failed.
    pub(crate) fn report(mut self, class: ResponseClass) -> bool {
        self.reported = true;
        let RetryPolicy { initial_backoff, max_backoff, .. } = self.pool.policy;
        let name = &self.endpoint().name;
        let mut states = self.pool.lock();
        let State { limit, breaker, failed_probes, .. } = &mut states[self.index];
        let reason = match class {
            ResponseClass::Success => {
                limit.increase(self.generation);
                None
            }
            ResponseClass::Rejected => None,
            ResponseClass::RateLimited => {
                log_decrease(name, limit.decrease(self.generation));
                None
            }
            ResponseClass::Failed(reason) => {
                log_decrease(name, limit.decrease(self.generation));
                Some(reason)
            }
            ResponseClass::Unreachable(reason) => Some(reason),
        };
        let Some(reason) = reason else {
            if breaker.on_success() {
                tracing::warn!("`{name}` has recovered, circuit closed");
            }
            return false;
        };
        let backoff = (initial_backoff, max_backoff);
        if let Some(open_time) = breaker.on_failure(self.probe, || reason, Instant::now(), backoff)
        {
            let open_s = open_time.as_secs_f64();
            tracing::warn!(open_s, "`{name}` keeps failing, circuit open");
        }
        *failed_probes += u32::from(self.probe);
        self.probe
    }
}

fn log_decrease(name: &str, limit: Option<usize>) {
    if let Some(limit) = limit {
        tracing::info!(limit, "`{name}` is overloaded, concurrency limit halved");
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut states = self.pool.lock();
        let State { limit, breaker, .. } = &mut states[self.index];
        if self.probe && !self.reported {
            breaker.on_probe_cancelled();
        }
        limit.release();
        drop(states);
        self.pool.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
