//! When to try again.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The wait before another attempt at the same endpoint: doubling from `first` to `longest`, of
/// which a random half is taken off, so that clients which failed together do not come back together.
///
/// `failures` counts from 1; `jitter` is in `[0, 1)`.
pub(crate) fn backoff(first: Duration, longest: Duration, failures: u32, jitter: f64) -> Duration {
    let doubled = first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(longest).mul_f64(1.0 - 0.5 * jitter)
}

/// More than anyone waits; what lies beyond could not be added to a moment.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long the server asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as an HTTP
/// date (RFC 9110, 10.2.3). A date that is past means no wait; what cannot be read means nothing.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    asked(headers, now).map(|wait| wait.min(YEAR))
}

fn asked(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim().to_owned());
    if let Some(ms) = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(&value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn retry_after_is_read_as_seconds() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(retry_after(&headers("retry-after", " 7 "), now), Some(Duration::from_secs(7)));
    }

    #[test]
    fn retry_after_is_read_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:07 GMT").unwrap();
        let wait = retry_after(&headers("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), now);
        assert_eq!(wait, Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_date_that_is_past_means_no_wait() {
        let wait = retry_after(
            &headers("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
            SystemTime::now(),
        );
        assert_eq!(wait, Some(Duration::ZERO));
    }

    #[test]
    fn milliseconds_come_first() {
        let mut headers = headers("retry-after", "7");
        headers.insert("retry-after-ms", "250".parse().unwrap());
        let wait = retry_after(&headers, SystemTime::UNIX_EPOCH);
        assert_eq!(wait, Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_wait_that_cannot_be_read_is_none() {
        for value in ["soon", "-3", "inf", "NaN", ""] {
            let wait = retry_after(&headers("retry-after", value), SystemTime::UNIX_EPOCH);
            assert_eq!(wait, None, "{value}");
        }
    }

    #[test]
    fn no_wait_is_longer_than_a_year() {
        for value in ["1e18", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            let wait = retry_after(&headers("retry-after", value), SystemTime::now());
            assert_eq!(wait, Some(YEAR), "{value}");
        }
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        let seconds = |failures| backoff(first, longest, failures, 0.0).as_secs();
        assert_eq!([1, 2, 3, 5, 6, 99].map(seconds), [1, 2, 4, 16, 30, 30]);
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        let wait = backoff(Duration::from_secs(4), Duration::from_secs(30), 1, 0.5);
        assert_eq!(wait, Duration::from_secs(3));
    }
}
