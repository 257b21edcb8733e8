//! The crate's error.

use std::time::Duration;

/// Errors of creating a client and of its requests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A client needs at least one base URL.
    #[error("no base URL is given, pass at least one")]
    NoBaseUrl,
    /// A base URL is invalid.
    #[error("`{url}` is not a base URL: {reason}; give one such as `http://localhost:8000/v1`")]
    InvalidBaseUrl {
        /// The given URL, without credentials and query.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The HTTP client could not be created.
    #[error("cannot create the HTTP client: {reason}")]
    Setup {
        /// The reason, with its causes.
        reason: String,
    },
    /// The request cannot be serialized.
    #[error("cannot serialize the request as JSON")]
    SerializeRequest(#[source] serde_json::Error),
    /// The server returned an unsuccessful status.
    #[error("`{url}` returned {status}: {message}")]
    Status {
        /// The endpoint.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's message, shortened, with the key redacted.
        message: String,
        /// The response's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A request timed out.
    #[error("`{url}` {kind} within {} s", timeout.as_secs_f64())]
    Timeout {
        /// The endpoint.
        url: String,
        /// Which timeout.
        kind: TimeoutKind,
        /// The timeout.
        timeout: Duration,
    },
    /// The connection could not be established, or broke.
    #[error("the connection to `{url}` failed: {reason}")]
    Connection {
        /// The endpoint.
        url: String,
        /// The reason, with its causes.
        reason: String,
    },
    /// The status is successful, but the body is not a chat completion.
    #[error("`{url}` sent a response that is not a chat completion: {reason}")]
    InvalidResponse {
        /// The endpoint.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The response is longer than allowed.
    #[error("`{url}` sent a response of more than {} MiB", limit_bytes.div_ceil(1 << 20))]
    ResponseTooLarge {
        /// The endpoint.
        url: String,
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// The server's content filter rejected the request.
    #[error("the content filter of `{url}` rejected the request: {reason}")]
    ContentFiltered {
        /// The endpoint.
        url: String,
        /// The server's message, shortened, with the key redacted.
        reason: String,
    },
    /// The account's quota is used up.
    #[error("the account at `{url}` has no quota left: {reason}")]
    InsufficientQuota {
        /// The endpoint.
        url: String,
        /// The server's message, shortened, with the key redacted.
        reason: String,
    },
    /// No endpoint is available, and none will be soon.
    #[error("`{url}` is not available: {reason}")]
    Unavailable {
        /// The endpoint; among several, the one that is available soonest.
        url: String,
        /// Why it is not available.
        reason: String,
    },
    /// Every attempt failed with a retryable error.
    #[error("gave up after {attempts} attempts: {last}")]
    RetriesExhausted {
        /// How often the request was sent.
        attempts: u32,
        /// The last attempt's error.
        last: Box<Error>,
    },
}

/// Which timeout of a request expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// Connecting to the server.
    Connect,
    /// Until the response's first byte.
    FirstByte,
    /// The whole request.
    Total,
}

impl std::fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "accepted no connection",
            Self::FirstByte => "sent no first byte",
            Self::Total => "did not complete its response",
        })
    }
}

impl Error {
    /// Whether the same request may succeed later: 408, 409, 425, 429, 5xx, timeouts, broken
    /// connections, and responses that are invalid or too large.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                matches!(status, 408 | 409 | 425 | 429) || (500..600).contains(status)
            }
            Self::Timeout { .. }
            | Self::Connection { .. }
            | Self::InvalidResponse { .. }
            | Self::ResponseTooLarge { .. }
            | Self::Unavailable { .. } => true,
            Self::RetriesExhausted { last, .. } => last.is_retryable(),
            _ => false,
        }
    }

    /// Whether every other request would fail in the same way: invalid key (401), no permission for the
    /// model (403), unknown path or model (404), insufficient quota, or an unusable client.
    pub fn fails_every_request(&self) -> bool {
        matches!(
            self,
            Self::Status { status: 401 | 403 | 404, .. }
                | Self::InsufficientQuota { .. }
                | Self::Setup { .. }
                | Self::NoBaseUrl
                | Self::InvalidBaseUrl { .. }
        )
    }

    /// Whether the prompt, alone or with the requested completion, exceeds the context length of the model, in the words
    /// of OpenAI, vLLM, SGLang, llama.cpp and this project's server.
    pub fn is_context_length_exceeded(&self) -> bool {
        const PHRASES: [&str; 5] = [
            "context length",
            "context_length_exceeded",
            "maximum model length",
            "context size",
            "context window",
        ];
        match self {
            Self::Status { status: 400 | 413 | 422, message, .. } => {
                let message = message.to_lowercase();
                PHRASES.iter().any(|phrase| message.contains(phrase))
            }
            _ => false,
        }
    }

    /// Whether the server rate-limits: 429.
    pub(crate) fn is_rate_limited(&self) -> bool {
        matches!(self, Self::Status { status: 429, .. })
    }

    /// The server's `Retry-After`, if it sent one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::RetriesExhausted { last, .. } => last.retry_after(),
            _ => None,
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error's message, followed by those of its causes that it does not repeat.
pub fn with_causes(error: &dyn std::error::Error) -> String {
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
    fn transient_statuses_are_retryable_and_permanent_ones_are_not() {
        for code in [408, 409, 425, 429, 500, 502, 503, 504, 529] {
            assert!(status(code).is_retryable(), "{code}");
        }
        for code in [301, 400, 401, 402, 403, 404, 413, 422] {
            assert!(!status(code).is_retryable(), "{code}");
        }
    }

    #[test]
    fn too_long_a_prompt_is_recognized_in_each_servers_words() {
        let of = |status, message: &str| {
            let (url, message) = ("u".into(), message.into());
            Error::Status { url, status, message, retry_after: None }.is_context_length_exceeded()
        };
        for message in [
            "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens",
            "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
            "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
            "the request exceeds the available context size. try increasing the context size",
            "Your input exceeds the context window of this model.",
        ] {
            assert!(of(400, message), "{message}");
            assert!(!of(500, message));
        }
        assert!(!of(400, "max_tokens is too large"));
    }

    #[test]
    fn exhausted_retries_are_as_retryable_as_the_last_failure() {
        let gave_up = Error::RetriesExhausted { attempts: 3, last: Box::new(status(503)) };
        assert!(gave_up.is_retryable());
        assert_eq!(gave_up.to_string(), "gave up after 3 attempts: `u` returned 503: m");
    }
}
