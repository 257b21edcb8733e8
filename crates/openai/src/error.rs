//! The crate's error.

use std::time::Duration;

/// Why a chat request got no reply, or a client could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A client needs somewhere to send its requests.
    #[error("no base URL is given, name at least one")]
    NoBaseUrl,
    /// A base URL that no request can be sent to.
    #[error("`{url}` is not a base URL: {why}; give one such as `http://localhost:8000/v1`")]
    BadBaseUrl {
        /// The URL as it was given, without credentials and query.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client: {why}")]
    Setup {
        /// The reason, with its causes.
        why: String,
    },
    /// The request cannot be written as JSON.
    #[error("cannot write the request as JSON")]
    Request(#[source] serde_json::Error),
    /// The server answered with a status other than success.
    #[error("`{url}` answered {status}: {message}")]
    Status {
        /// The endpoint.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words, shortened, without the key.
        message: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// No whole reply arrived in time.
    #[error("`{url}` gave no reply within {} s", timeout.as_secs_f64())]
    Timeout {
        /// The endpoint.
        url: String,
        /// The time that a request may take.
        timeout: Duration,
    },
    /// The connection could not be made, or broke.
    #[error("the connection to `{url}` failed: {why}")]
    Connection {
        /// The endpoint.
        url: String,
        /// The reason, with its causes.
        why: String,
    },
    /// The server reports success, but what it sent is not a chat reply.
    #[error("`{url}` sent a reply that is not a chat completion: {why}")]
    BadReply {
        /// The endpoint.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Every attempt failed in a way that may pass.
    #[error("gave up after {attempts} attempts: {last}")]
    GaveUp {
        /// How often the request was sent.
        attempts: u32,
        /// Why the last attempt failed.
        last: Box<Error>,
    },
}

impl Error {
    /// Whether the same request may succeed later: 408, 409, 425, 429, 5xx, timeouts, broken
    /// connections and broken replies.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                matches!(status, 408 | 409 | 425 | 429) || (500..600).contains(status)
            }
            Self::Timeout { .. } | Self::Connection { .. } | Self::BadReply { .. } => true,
            Self::GaveUp { last, .. } => last.is_retryable(),
            _ => false,
        }
    }

    /// How long the server asked to wait, where it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::GaveUp { last, .. } => last.retry_after(),
            _ => None,
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error's message with those of its causes, which HTTP libraries keep apart.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Error {
        Error::Status { url: "u".into(), status, message: "m".into(), retry_after: None }
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for code in [408, 409, 425, 429, 500, 502, 503, 504, 529] {
            assert!(status(code).is_retryable(), "{code}");
        }
        for code in [301, 400, 401, 402, 403, 404, 413, 422] {
            assert!(!status(code).is_retryable(), "{code}");
        }
    }

    #[test]
    fn having_given_up_keeps_the_nature_of_the_last_failure() {
        let gave_up = Error::GaveUp { attempts: 3, last: Box::new(status(503)) };
        assert!(gave_up.is_retryable());
        assert_eq!(gave_up.to_string(), "gave up after 3 attempts: `u` answered 503: m");
    }
}
