//! Retry delays: exponential back-off and `Retry-After`.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Delay before the next attempt at the same endpoint: doubles from `initial` to `max`, minus a random
/// share of at most half, so that clients which failed together do not retry together.
///
/// `failures` counts from 1; `jitter` is in `[0, 1)`.
pub(crate) fn backoff(initial: Duration, max: Duration, failures: u32, jitter: f64) -> Duration {
    let doubled = initial.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(max).mul_f64(1.0 - 0.5 * jitter)
}

/// Upper bound on `Retry-After`: a much longer one would overflow an `Instant`.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The delay that the server requests: `retry-after-ms`, or `Retry-After` as seconds or as an HTTP
/// date (RFC 9110, 10.2.3). A past date means no delay; an invalid value is ignored.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    parse_retry_after(headers, now).map(|wait| wait.min(YEAR))
}

fn parse_retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
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
    fn retry_after_is_parsed_as_seconds() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(retry_after(&headers("retry-after", " 7 "), now), Some(Duration::from_secs(7)));
    }

    #[test]
    fn retry_after_is_parsed_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:07 GMT").unwrap();
        let wait = retry_after(&headers("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), now);
        assert_eq!(wait, Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_past_date_means_no_delay() {
        let wait = retry_after(
            &headers("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
            SystemTime::now(),
        );
        assert_eq!(wait, Some(Duration::ZERO));
    }

    #[test]
    fn milliseconds_take_precedence() {
        let mut headers = headers("retry-after", "7");
        headers.insert("retry-after-ms", "250".parse().unwrap());
        let wait = retry_after(&headers, SystemTime::UNIX_EPOCH);
        assert_eq!(wait, Some(Duration::from_millis(250)));
    }

    #[test]
    fn an_invalid_value_is_ignored() {
        for value in ["soon", "-3", "inf", "NaN", ""] {
            let wait = retry_after(&headers("retry-after", value), SystemTime::UNIX_EPOCH);
            assert_eq!(wait, None, "{value}");
        }
    }

    #[test]
    fn the_delay_is_capped_at_a_year() {
        for value in ["1e18", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            let wait = retry_after(&headers("retry-after", value), SystemTime::now());
            assert_eq!(wait, Some(YEAR), "{value}");
        }
    }

    #[test]
    fn the_delay_doubles_up_to_its_maximum() {
        let (initial, max) = (Duration::from_secs(1), Duration::from_secs(30));
        let seconds = |failures| backoff(initial, max, failures, 0.0).as_secs();
        assert_eq!([1, 2, 3, 5, 6, 99].map(seconds), [1, 2, 4, 16, 30, 30]);
    }

    #[test]
    fn jitter_removes_at_most_half() {
        let wait = backoff(Duration::from_secs(4), Duration::from_secs(30), 1, 0.5);
        assert_eq!(wait, Duration::from_secs(3));
    }
}
