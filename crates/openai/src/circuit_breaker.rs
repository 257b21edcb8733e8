//! A circuit breaker for an endpoint, driven by the results of its requests.

use std::time::{Duration, Instant};

use crate::retry;

/// Consecutive failures after which the circuit opens.
const FAILURES: u32 = 3;

/// A circuit breaker: it opens after a few consecutive failures, and no request is sent for a while.
/// Then a single probe request closes it again, or keeps it open for twice as long.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    /// Failures since the last success.
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    failed_probes: u32,
    /// Whether a probe is in flight.
    probing: bool,
    /// The last failure.
    reason: String,
}

/// Which requests a circuit breaker admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// As many as the concurrency limit allows (closed).
    All,
    /// A single probe from this moment on (open, then half-open).
    ProbeAfter(Instant),
    /// None until the probe in flight returns (half-open).
    None,
}

impl CircuitBreaker {
    pub(crate) fn admission(&self) -> Admission {
        match &self.open {
            None => Admission::All,
            Some(open) if open.probing => Admission::None,
            Some(open) => Admission::ProbeAfter(open.until),
        }
    }

    /// A request is sent. Returns whether it is a probe.
    pub(crate) fn on_send(&mut self) -> bool {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
        self.open.is_some()
    }

    /// The endpoint answered. Returns whether that closed the circuit.
    pub(crate) fn on_success(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// A request failed; the open time doubles from `initial` to `max`. Returns the open time if the
    /// circuit opened or a probe failed.
    pub(crate) fn on_failure(
        &mut self,
        probe: bool,
        reason: impl FnOnce() -> String,
        now: Instant,
        (initial, max): (Duration, Duration),
    ) -> Option<Duration> {
        self.failures += 1;
        let failed_probes = match &self.open {
            // It was in flight when the circuit opened.
            Some(_) if !probe => return None,
            Some(open) => open.failed_probes + 1,
            None if self.failures < FAILURES => return None,
            None => 0,
        };
        let open_time = retry::backoff(initial, max, failed_probes + 1, 0.0);
        self.open =
            Some(Open { until: now + open_time, failed_probes, probing: false, reason: reason() });
        Some(open_time)
    }

    /// The probe was cancelled by its sender.
    pub(crate) fn on_probe_cancelled(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// Consecutive failures, how many of them were probes, and the last failure's reason; `None` while
    /// the circuit is closed.
    pub(crate) fn failure(&self) -> Option<(u32, u32, &str)> {
        let open = self.open.as_ref()?;
        Some((self.failures, open.failed_probes, &open.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

    fn fail(breaker: &mut CircuitBreaker, now: Instant) -> Option<Duration> {
        let probe = breaker.on_send();
        breaker.on_failure(probe, || "dead".to_owned(), now, BACKOFF)
    }

    fn open(breaker: &mut CircuitBreaker, now: Instant) {
        while breaker.failure().is_none() {
            fail(breaker, now);
        }
    }

    #[test]
    fn it_opens_at_the_third_consecutive_failure() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        fail(&mut breaker, now);
        fail(&mut breaker, now);
        breaker.on_success();
        assert_eq!([fail(&mut breaker, now), fail(&mut breaker, now)], [None, None]);
        assert_eq!(breaker.admission(), Admission::All);
        assert_eq!(fail(&mut breaker, now), Some(BACKOFF.0));
        assert_eq!(breaker.admission(), Admission::ProbeAfter(now + BACKOFF.0));
    }

    #[test]
    fn each_failed_probe_doubles_the_open_time_up_to_its_limit() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        let open_times: Vec<u64> =
            (0..7).filter_map(|_| Some(fail(&mut breaker, now)?.as_secs())).collect();
        assert_eq!(open_times, [1, 2, 4, 5, 5]);
        assert_eq!(breaker.failure(), Some((7, 4, "dead")));
    }

    #[test]
    fn one_probe_at_a_time_and_its_success_closes_the_circuit() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        open(&mut breaker, now);
        assert!(breaker.on_send());
        assert_eq!(breaker.admission(), Admission::None);
        assert!(breaker.on_success());
        assert_eq!(breaker.admission(), Admission::All);
    }

    #[test]
    fn late_failures_of_earlier_requests_do_not_prolong_the_open_time() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        open(&mut breaker, now);
        let late = breaker.on_failure(false, || "late".to_owned(), now + BACKOFF.1, BACKOFF);
        assert_eq!((late, breaker.admission()), (None, Admission::ProbeAfter(now + BACKOFF.0)));
    }

    #[test]
    fn a_cancelled_probe_makes_way_for_the_next() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        open(&mut breaker, now);
        breaker.on_send();
        breaker.on_probe_cancelled();
        assert_eq!(breaker.admission(), Admission::ProbeAfter(now + BACKOFF.0));
    }
}
