//! Which endpoint a request goes to, and when.
//!
//! Among the endpoints that may be used now, those come first that have failed the request least,
//! and of these it goes round by weight. An endpoint may not be used while it has asked to be left
//! alone ([`Place::hold`]), while it seems dead ([`Circuit`]), or while it has as many requests as
//! it copes with ([`Pace`]).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::circuit::{Allowed, Circuit};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::pace::Pace;

/// All endpoints and what is known of them.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoints: Vec<Endpoint>,
    states: Mutex<Vec<State>>,
    /// Rings whenever a request may find another endpoint free than before.
    changed: Notify,
    patience: Patience,
}

/// How long and how often to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The first rest of an endpoint that seems dead.
    pub(crate) first_wait: Duration,
    /// Its longest rest.
    pub(crate) longest_wait: Duration,
    /// The longest that a request waits for an endpoint that asks to be left alone.
    pub(crate) longest_hold: Duration,
    /// Failures of a request after which it is given up.
    pub(crate) max_retries: u32,
}

/// What is known of one endpoint.
#[derive(Debug)]
struct State {
    pace: Pace,
    circuit: Circuit,
    /// No request is sent before this, as the endpoint asked for it.
    held_until: Option<Instant>,
    /// Left out for good, since it refuses everyone.
    benched: bool,
    /// Of the smooth weighted round robin: how far it is behind its share.
    credit: f64,
    /// Single requests that found it still dead, ever.
    failed_probes: u32,
}

/// What a reply, or its absence, says of the endpoint.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It did what it was asked.
    Good,
    /// It answers, but not this request.
    Alive,
    /// It answers that it has too much to do.
    Overrun,
    /// It failed in this way.
    Failed(String),
    /// It could not be reached, or broke off, in this way: not a matter of how much it has to do.
    Unreachable(String),
}

/// One request's own history.
#[derive(Debug)]
pub(crate) struct Route {
    /// By endpoint: how often it failed the request.
    failures: Vec<u32>,
    /// By endpoint: no sooner than this, as the request backs off.
    ready: Vec<Option<Instant>>,
    /// By endpoint: its failed probes when the request began, and those that were the request itself.
    probes: Vec<u32>,
}

impl Route {
    /// Counts a failure and returns how many the endpoint has had of this request.
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

/// Where to send a request now, or what to wait for.
enum Pick<'a> {
    Now(Place<'a>),
    /// Until this moment at most, or until something changes.
    Later(Option<Instant>),
}

impl Pool {
    /// `concurrency` is split over the endpoints by weight, rounded up.
    pub(crate) fn new(endpoints: Vec<Endpoint>, concurrency: usize, patience: Patience) -> Self {
        let total: f64 = endpoints.iter().map(|endpoint| endpoint.weight).sum();
        let most = match concurrency {
            usize::MAX => f64::INFINITY,
            bounded => bounded as f64,
        };
        let state = |endpoint: &Endpoint| State {
            pace: Pace::new((most * endpoint.weight / total).ceil()),
            circuit: Circuit::default(),
            held_until: None,
            benched: false,
            credit: 0.0,
            failed_probes: 0,
        };
        let states = Mutex::new(endpoints.iter().map(state).collect());
        Self { endpoints, states, changed: Notify::new(), patience }
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// A new request's history.
    pub(crate) fn route(&self) -> Route {
        let states = self.lock();
        Route {
            failures: vec![0; states.len()],
            ready: vec![None; states.len()],
            probes: states.iter().map(|state| state.failed_probes).collect(),
        }
    }

    /// Waits for an endpoint that may be used.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where every endpoint has failed too often, or wants to be left alone for
    /// too long.
    pub(crate) async fn place(&self, route: &Route) -> Result<Place<'_>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no ring is missed.
            changed.as_mut().enable();
            match self.pick(route, Instant::now())? {
                Pick::Now(place) => return Ok(place),
                Pick::Later(None) => changed.await,
                Pick::Later(Some(moment)) => {
                    // Whichever comes first.
                    let _ = tokio::time::timeout_at(moment.into(), changed).await;
                }
            }
        }
    }

    fn pick(&self, route: &Route, now: Instant) -> Result<Pick<'_>> {
        let mut states = self.lock();
        self.check_holds(&states, now)?;
        self.check_health(&states, route)?;
        let mut soonest: Option<Instant> = None;
        let mut free = Vec::new();
        for (i, state) in states.iter().enumerate().filter(|(_, state)| !state.benched) {
            let (from, room) = match state.circuit.allowed() {
                Allowed::All => (None, state.pace.has_room()),
                Allowed::OneFrom(moment) => (Some(moment), true),
                Allowed::None => (None, false),
            };
            match from.max(state.held_until).max(route.ready[i]) {
                Some(moment) if moment > now => {
                    soonest = Some(soonest.map_or(moment, |other| other.min(moment)));
                }
                _ if room => free.push(i),
                // Something changes when a request comes back.
                _ => {}
            }
        }
        if let Some(index) = turn(&mut states, &self.endpoints, route, &free) {
            let round = states[index].pace.begin();
            let probe = states[index].circuit.begin();
            return Ok(Pick::Now(Place { pool: self, index, round, probe, told: false }));
        }
        Ok(Pick::Later(soonest))
    }

    /// Whether it is worth while to wait at all: what other requests have found out counts too, so
    /// that a thousand requests need not try a dead endpoint one after the other.
    fn check_health(&self, states: &[State], route: &Route) -> Result<()> {
        let used = || states.iter().enumerate().filter(|(_, state)| !state.benched);
        let ill = used().map(|(i, state)| Some((i, state.circuit.illness()?)));
        let Some(ill) = ill.collect::<Option<Vec<_>>>() else { return Ok(()) };
        let probes = used().map(|(i, state)| state.failed_probes.saturating_sub(route.probes[i]));
        let failures: u32 = route.failures.iter().sum::<u32>() + probes.min().unwrap_or(0);
        match ill.first() {
            Some((i, (in_a_row, _, why))) if failures > self.patience.max_retries => {
                let url = self.endpoints[*i].name.clone();
                let why = format!("it has failed {in_a_row} times in a row: {why}");
                Err(Error::Unavailable { url, why })
            }
            _ => Ok(()),
        }
    }

    /// Whether some endpoint may be asked again before patience ends.
    fn check_holds(&self, states: &[State], now: Instant) -> Result<()> {
        let used = states.iter().zip(&self.endpoints).filter(|(state, _)| !state.benched);
        let wait = |state: &State| state.held_until.map_or(Duration::ZERO, |until| until - now);
        let Some((wait, url)) = used.map(|(state, at)| (wait(state), &at.name)).min() else {
            return Ok(());
        };
        if wait <= self.patience.longest_hold {
            return Ok(());
        }
        let why = format!("it asked to be left alone for {} s more", wait.as_secs());
        Err(Error::Unavailable { url: url.clone(), why })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next one of `free`, those first that have failed the request least: smooth weighted round
/// robin, which gives nobody several turns in a row that others wait for.
fn turn(
    states: &mut [State],
    endpoints: &[Endpoint],
    route: &Route,
    free: &[usize],
) -> Option<usize> {
    let fewest = free.iter().map(|&i| route.failures[i]).min()?;
    let best: Vec<usize> = free.iter().copied().filter(|&i| route.failures[i] == fewest).collect();
    for &i in &best {
        states[i].credit += endpoints[i].weight;
    }
    let chosen = best.iter().copied().reduce(|a, b| match states[b].credit > states[a].credit {
        true => b,
        false => a,
    })?;
    states[chosen].credit -= best.iter().map(|&i| endpoints[i].weight).sum::<f64>();
    Some(chosen)
}

/// A request's place at an endpoint, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pool: &'a Pool,
    index: usize,
    round: u64,
    probe: bool,
    told: bool,
}

impl Place<'_> {
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.pool.endpoints[self.index]
    }

    /// Keeps every request from the endpoint for a while; a longer hold stays.
    pub(crate) fn hold(&self, until: Instant) {
        let mut states = self.pool.lock();
        let held = &mut states[self.index].held_until;
        *held = (*held).max(Some(until));
    }

    /// Leaves the endpoint out from now on, if there is another one.
    pub(crate) fn bench(&self) -> bool {
        let mut states = self.pool.lock();
        let others = states.iter().enumerate().any(|(i, state)| i != self.index && !state.benched);
        states[self.index].benched |= others;
        others
    }

    /// Says what became of the request. Returns whether the endpoint is still dead after a single
    /// request that was to find out.
    pub(crate) fn tell(mut self, verdict: Verdict) -> bool {
        self.told = true;
        let Patience { first_wait, longest_wait, .. } = self.pool.patience;
        let name = &self.endpoint().name;
        let mut states = self.pool.lock();
        let State { pace, circuit, failed_probes, .. } = &mut states[self.index];
        let why = match verdict {
            Verdict::Good => {
                pace.good(self.round);
                None
            }
            Verdict::Alive => None,
            Verdict::Overrun => {
                slower(name, pace.overrun(self.round));
                None
            }
            Verdict::Failed(why) => {
                slower(name, pace.overrun(self.round));
                Some(why)
            }
            Verdict::Unreachable(why) => Some(why),
        };
        let Some(why) = why else {
            if circuit.alive() {
                tracing::warn!("`{name}` answers again");
            }
            return false;
        };
        let waits = (first_wait, longest_wait);
        if let Some(rest) = circuit.failed(self.probe, || why, Instant::now(), waits) {
            let rest_s = rest.as_secs_f64();
            tracing::warn!(rest_s, "`{name}` keeps failing and is left alone for a while");
        }
        *failed_probes += u32::from(self.probe);
        self.probe
    }
}

fn slower(name: &str, limit: Option<usize>) {
    if let Some(limit) = limit {
        tracing::info!(limit, "`{name}` is overrun and gets fewer requests at a time");
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut states = self.pool.lock();
        let State { pace, circuit, .. } = &mut states[self.index];
        if self.probe && !self.told {
            circuit.abandoned();
        }
        pace.end();
        drop(states);
        self.pool.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
