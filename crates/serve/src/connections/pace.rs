//! The pace at which a request's body arrives.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second below which a body is slow.
pub(crate) const MIN_BYTES_PER_SECOND: u64 = 4 << 10;

/// The pause that a new body may make.
pub(super) const GRACE: Duration = Duration::from_millis(1250);

/// The longer pause of a body that has kept the minimum rate: half the time for which it has, up to this.
const MAX_EARNED_PAUSE: Duration = Duration::from_secs(5);

/// How far a body is, and until when it keeps the minimum rate without further bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) began: Instant,
    pub(super) bytes: u64,
    /// When the body is slow, unless more of it arrives.
    pub(super) slow_at: Instant,
    last: Instant,
    /// The time for which it has kept the minimum rate.
    kept: Duration,
}

impl Pace {
    /// The pace of a body that begins `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0, slow_at: now + GRACE, last: now, kept: Duration::ZERO }
    }

    /// `bytes` more have arrived. They last for the time that they take at the minimum rate, but a pause has its limit:
    /// otherwise a client could send a burst, then hold its connection.
    pub(super) fn received(&mut self, now: Instant, bytes: u64) {
        let lasts = Duration::from_micros(bytes.saturating_mul(1_000_000) / MIN_BYTES_PER_SECOND);
        self.kept += lasts.min(now - self.last);
        let pause = GRACE + (self.kept / 2).min(MAX_EARNED_PAUSE);
        self.slow_at = (self.slow_at + lasts).min(now + pause);
        self.last = now;
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: u64 = 1 << 10;

    /// For how long a body that gets these bytes each `interval` is slow, of `seconds`.
    fn slow(bytes: u64, interval: Duration, seconds: u64) -> Duration {
        let began = Instant::now();
        let (mut pace, mut now) = (Pace::new(began), began);
        let mut slow = Duration::ZERO;
        while now < began + Duration::from_secs(seconds) {
            pace.received(now, bytes);
            now += interval;
            slow += now.saturating_duration_since(pace.slow_at).min(interval);
        }
        slow
    }

    #[test]
    fn a_steady_body_above_the_minimum_rate_is_never_slow() {
        for (bytes, millis) in [(5 * KB, 1_000), (64 * KB, 1_000), (400, 80), (16 * KB, 500)] {
            let slow = slow(bytes, Duration::from_millis(millis), 3_600);
            assert_eq!(slow, Duration::ZERO, "{bytes} bytes every {millis} ms");
        }
    }

    #[test]
    fn a_body_that_has_been_steady_may_pause_for_longer() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        for second in 0..=60 {
            pace.received(began + Duration::from_secs(second), 64 * KB);
        }
        let last = began + Duration::from_secs(60);
        assert_eq!(pace.slow_at - last, GRACE + MAX_EARNED_PAUSE);
    }

    #[test]
    fn a_trickling_body_is_slow_after_the_grace_period() {
        for (bytes, millis) in [(1, 1_000), (1, 10), (100, 1_000), (2 * KB, 1_000)] {
            let slow = slow(bytes, Duration::from_millis(millis), 60).as_secs();
            assert!(slow >= 25, "{bytes} bytes every {millis} ms are slow for {slow} s of 60");
        }
    }

    #[test]
    fn a_burst_does_not_pay_for_a_pause() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        for _ in 0..1_000 {
            pace.received(began, 64 * KB);
        }
        assert_eq!(pace.slow_at - began, GRACE);
    }

    #[test]
    fn a_slow_body_that_catches_up_is_no_longer_slow() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let now = began + Duration::from_secs(60);
        assert!(pace.slow_at < now);
        pace.received(now, 256 * KB);
        assert!(pace.slow_at > now);
    }
}
