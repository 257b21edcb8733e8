//! Whether an endpoint is alive, judged by what becomes of the requests that it is given.

use std::time::{Duration, Instant};

use crate::retry;

/// So many failures one after the other, and the endpoint is left alone for a while.
const FAILURES: u32 = 3;

/// A circuit breaker: after a few failures in a row no request is sent for a while, then a single
/// one, which closes the circuit again or opens it for twice as long.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    /// Failures since the last success.
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    /// Failures of the single requests so far.
    failed_probes: u32,
    probing: bool,
    /// What the endpoint did last.
    why: String,
}

/// What a circuit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// As many requests as the pace allows.
    All,
    /// A single request from this moment on.
    OneFrom(Instant),
    /// None before the single one that is on its way comes back.
    None,
}

impl Circuit {
    pub(crate) fn allowed(&self) -> Allowed {
        match &self.open {
            None => Allowed::All,
            Some(open) if open.probing => Allowed::None,
            Some(open) => Allowed::OneFrom(open.until),
        }
    }

    /// A request is sent. Returns whether it is the single one.
    pub(crate) fn begin(&mut self) -> bool {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
        self.open.is_some()
    }

    /// The endpoint answered. Returns whether that closed the circuit.
    pub(crate) fn alive(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// A request failed; the waits double from `first` to `longest`. Returns for how long the
    /// endpoint is left alone from now on, where that begins or begins anew.
    pub(crate) fn failed(
        &mut self,
        probe: bool,
        why: impl FnOnce() -> String,
        now: Instant,
        (first, longest): (Duration, Duration),
    ) -> Option<Duration> {
        self.failures += 1;
        let failed_probes = match &self.open {
            // Of those that were on their way when the circuit opened.
            Some(_) if !probe => return None,
            Some(open) => open.failed_probes + 1,
            None if self.failures < FAILURES => return None,
            None => 0,
        };
        let rest = retry::backoff(first, longest, failed_probes + 1, 0.0);
        self.open = Some(Open { until: now + rest, failed_probes, probing: false, why: why() });
        Some(rest)
    }

    /// The single request was given up by whoever sent it.
    pub(crate) fn abandoned(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// Failures in a row, of them the single requests, and what the endpoint did last; `None` while
    /// it is well.
    pub(crate) fn illness(&self) -> Option<(u32, u32, &str)> {
        let open = self.open.as_ref()?;
        Some((self.failures, open.failed_probes, &open.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

    fn fail(circuit: &mut Circuit, now: Instant) -> Option<Duration> {
        let probe = circuit.begin();
        circuit.failed(probe, || "dead".to_owned(), now, WAITS)
    }

    fn open(circuit: &mut Circuit, now: Instant) {
        while circuit.illness().is_none() {
            fail(circuit, now);
        }
    }

    #[test]
    fn it_opens_at_the_third_failure_in_a_row() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        fail(&mut circuit, now);
        fail(&mut circuit, now);
        circuit.alive();
        assert_eq!([fail(&mut circuit, now), fail(&mut circuit, now)], [None, None]);
        assert_eq!(circuit.allowed(), Allowed::All);
        assert_eq!(fail(&mut circuit, now), Some(WAITS.0));
        assert_eq!(circuit.allowed(), Allowed::OneFrom(now + WAITS.0));
    }

    #[test]
    fn each_failed_probe_doubles_the_rest_up_to_its_limit() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        let rests: Vec<u64> =
            (0..7).filter_map(|_| Some(fail(&mut circuit, now)?.as_secs())).collect();
        assert_eq!(rests, [1, 2, 4, 5, 5]);
        assert_eq!(circuit.illness(), Some((7, 4, "dead")));
    }

    #[test]
    fn one_probe_at_a_time_and_its_success_closes_the_circuit() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        open(&mut circuit, now);
        assert!(circuit.begin());
        assert_eq!(circuit.allowed(), Allowed::None);
        assert!(circuit.alive());
        assert_eq!(circuit.allowed(), Allowed::All);
    }

    #[test]
    fn late_failures_of_requests_from_before_do_not_prolong_the_rest() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        open(&mut circuit, now);
        let late = circuit.failed(false, || "late".to_owned(), now + WAITS.1, WAITS);
        assert_eq!((late, circuit.allowed()), (None, Allowed::OneFrom(now + WAITS.0)));
    }

    #[test]
    fn a_probe_that_is_given_up_leaves_its_place_to_the_next() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        open(&mut circuit, now);
        circuit.begin();
        circuit.abandoned();
        assert_eq!(circuit.allowed(), Allowed::OneFrom(now + WAITS.0));
    }
}
