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
    /// Something did not happen in time.
    #[error("`{url}` {deadline} within {} s", timeout.as_secs_f64())]
    Timeout {
        /// The endpoint.
        url: String,
        /// What did not happen.
        deadline: Deadline,
        /// The time that it may take.
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
    /// The request breaks the rules of whoever runs the server: their filter refused it.
    #[error("`{url}` refuses the content: {why}")]
    Refused {
        /// The endpoint.
        url: String,
        /// The server's own words, shortened, without the key.
        why: String,
    },
    /// The account has nothing left to spend.
    #[error("the account at `{url}` has no quota left: {why}")]
    OutOfQuota {
        /// The endpoint.
        url: String,
        /// The server's own words, shortened, without the key.
        why: String,
    },
    /// No endpoint may be used, and none soon.
    #[error("`{url}` is not available: {why}")]
    Unavailable {
        /// The endpoint, or the one of several that may be used soonest.
        url: String,
        /// What keeps it from being used.
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

/// What a request must do in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deadline {
    /// Reach the server.
    Connect,
    /// Get the reply's first byte.
    FirstByte,
    /// Get the whole reply.
    Whole,
}

impl std::fmt::Display for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "could not be connected to",
            Self::FirstByte => "did not begin to reply",
            Self::Whole => "gave no whole reply",
        })
    }
}

impl Error {
    /// Whether the same request may succeed later: 408, 409, 425, 429, 5xx, timeouts, broken
    /// connections and broken replies.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                matches!(status, 408 | 409 | 425 | 429) || (500..600).contains(status)
            }
            Self::Timeout { .. }
            | Self::Connection { .. }
            | Self::BadReply { .. }
            | Self::Unavailable { .. } => true,
            Self::GaveUp { last, .. } => last.is_retryable(),
            _ => false,
        }
    }

    /// Whether every other request would fail in the same way: a wrong key (401), no right to use the
    /// model (403), no such address or model (404), nothing left to spend, or no way to send at all.
    pub fn refuses_everyone(&self) -> bool {
        matches!(
            self,
            Self::Status { status: 401 | 403 | 404, .. }
                | Self::OutOfQuota { .. }
                | Self::Setup { .. }
                | Self::NoBaseUrl
                | Self::BadBaseUrl { .. }
        )
    }

    /// Whether the server has too much to do: 429.
    pub(crate) fn is_overrun(&self) -> bool {
        matches!(self, Self::Status { status: 429, .. })
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
