//! Error responses in OpenAI's format.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use embodied_r_inference::Error as EngineError;
use embodied_r_policy::Error as PolicyError;
use serde_json::{Value, json};

use crate::metrics::Outcome;

/// The `Retry-After` of overload responses, in seconds.
pub(crate) const RETRY_AFTER_S: u16 = 1;

/// An error response: `{"error": {"message", "type", "param", "code"}}` with its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// A field has an invalid value.
    pub(crate) fn field(param: &str, found: &Value, want: &str) -> Self {
        let mut found = found.to_string();
        if found.len() > 100 {
            found.truncate(found.floor_char_boundary(100));
            found.push('…');
        }
        Self::about(param, format!("`{param}` must be {want}, not {found}"))
            .with_code("invalid_value")
    }

    /// Something is wrong with a field.
    pub(crate) fn about(param: &str, message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::BAD_REQUEST, message);
        Self { param: Some(param.to_owned()), ..refusal }
    }

    /// Something is wrong with the image or video in a field.
    pub(crate) fn media(param: &str, error: &impl std::fmt::Display) -> Self {
        Self::about(param, format!("`{param}`: {error}"))
    }

    /// A required field is missing.
    pub(crate) fn missing(param: &str) -> Self {
        let message = format!("`{param}` is missing");
        Self::about(param, message).with_code("missing_required_parameter")
    }

    /// A field is not supported.
    pub(crate) fn unsupported(param: &str) -> Self {
        let message = format!("this server does not support `{param}`, omit it");
        Self::about(param, message).with_code("unsupported_parameter")
    }

    /// The body is not a JSON object.
    pub(crate) fn body(fault: impl std::fmt::Display) -> Self {
        let message = format!("the body is not a JSON object: {fault}");
        Self::new(StatusCode::BAD_REQUEST, message).with_code("invalid_json")
    }

    /// The body exceeds the size limit.
    pub(crate) fn too_large(max_bytes: usize) -> Self {
        let message = format!("the body has more than {max_bytes} bytes, send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_code("request_too_large")
    }

    /// The body has so many values that they would take many times its size.
    pub(crate) fn too_many_values(most: usize, kind: &str) -> Self {
        let message = format!("the body has more than {most} {kind}, send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_code("request_too_large")
    }

    /// The prompt and the requested completion exceed the context length.
    pub(crate) fn too_long(param: &str, prompt: usize, new: usize, most: usize) -> Self {
        let message = format!(
            "the prompt has {prompt} tokens and the request needs {new} more, but the context length is {most}: \
             shorten the prompt or request fewer tokens"
        );
        Self::about(param, message).with_code("context_length_exceeded")
    }

    /// The prompt alone exceeds the context length; its tokens were not all counted.
    pub(crate) fn too_many_tokens(param: &str, at_least: usize, most: usize) -> Self {
        let message = format!(
            "the prompt has {at_least} tokens or more, but the context length is {most}: shorten the prompt"
        );
        Self::about(param, message).with_code("context_length_exceeded")
    }

    /// The images and videos of a prompt have too many pixels.
    pub(crate) fn too_many_pixels(param: &str, pixels: u64, most: u64) -> Self {
        let message = format!(
            "the images and videos of the prompt have {pixels} pixels or more, above the limit of {most}: scale them down"
        );
        Self::about(param, message).with_code("image_too_large")
    }

    /// The log-probabilities of echoed prompts are too many.
    pub(crate) fn too_many_logprobs(requested: usize, most: usize) -> Self {
        let message = format!(
            "`echo` with `logprobs` gives {requested} log-probabilities, this server allows {most}: send fewer prompts"
        );
        Self::about("echo", message).with_code("too_many_logprobs")
    }

    pub(crate) fn too_many_sequences(requested: usize, most: usize) -> Self {
        let message = format!(
            "the request has {requested} completions, this server allows {most} at once: split it"
        );
        Self::new(StatusCode::BAD_REQUEST, message).with_code("too_many_completions")
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "the API key is missing or wrong, send `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key")
    }

    pub(crate) fn unknown_model(requested: &str, served: &str) -> Self {
        let message = format!("unknown model `{requested}`; available: `{served}`");
        let refusal = Self::new(StatusCode::NOT_FOUND, message).with_code("model_not_found");
        Self { param: Some("model".into()), ..refusal }
    }

    pub(crate) fn unknown_path(method: &str, path: &str) -> Self {
        let message = format!("unknown path `{method} {path}`");
        Self::new(StatusCode::NOT_FOUND, message).with_code("unknown_url")
    }

    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("`{path}` does not allow `{method}`");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message).with_code("method_not_allowed")
    }

    pub(crate) fn queue_full() -> Self {
        let message = "the queue is full, retry later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, message).with_code("queue_full")
    }

    /// The header of a request took too long.
    pub(crate) fn header_timeout(most: Duration) -> Self {
        let message = format!("the header of the request took longer than {} s", most.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, message).with_code("request_timeout")
    }

    /// The body of a request took too long.
    pub(crate) fn body_timeout(most: Duration) -> Self {
        let message = format!("the body of the request took longer than {} s", most.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, message).with_code("request_timeout")
    }

    /// The body of a request is slow, and another client needs its connection or its memory.
    pub(crate) fn slow_body(bytes: u64, elapsed: Duration, min_bytes_per_second: u64) -> Self {
        let message = format!(
            "the body of the request was too slow while other clients waited, with {bytes} bytes in {:.1} s: \
             send {min_bytes_per_second} bytes per second or more, without long pauses",
            elapsed.as_secs_f64()
        );
        Self::new(StatusCode::REQUEST_TIMEOUT, message).with_code("request_timeout")
    }

    /// The client reads a stream so slowly that too many tokens wait for it.
    pub(crate) fn slow_reader() -> Self {
        let message = "the stream is read more slowly than it is generated";
        Self::new(StatusCode::REQUEST_TIMEOUT, message).with_code("request_timeout")
    }

    pub(crate) fn too_many_connections(most: usize) -> Self {
        let message = format!("the server has {most} connections, its limit, retry later");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with_code("too_many_connections")
    }

    pub(crate) fn out_of_request_memory() -> Self {
        let message = "the memory for requests is in use, retry later or send less";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with_code("overloaded")
    }

    /// The client's requests hold so much memory that none is left for other clients.
    pub(crate) fn over_share() -> Self {
        let message = "the requests from this address have more than their share of the memory for requests, \
                       retry later or send less";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with_code("overloaded")
    }

    /// The request needs more than the memory of all requests.
    pub(crate) fn beyond_request_memory(most: u64) -> Self {
        let message = format!(
            "the request and its response need more than {most} bytes, the memory for one request, request less"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_code("request_too_large")
    }

    /// The path has bytes that are not UTF-8.
    pub(crate) fn undecodable_path() -> Self {
        let message = "the path is not valid UTF-8 after percent-decoding";
        Self::new(StatusCode::BAD_REQUEST, message).with_code("invalid_url")
    }

    pub(crate) fn stopping() -> Self {
        let message = "the server is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with_code("stopping")
    }

    /// The server failed; the request may be valid.
    pub(crate) fn failed(fault: impl std::fmt::Display) -> Self {
        let message = format!("internal server error: {fault}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message).with_code("server_failed")
    }

    /// The refusal for an error of the model: the request's fault if it concerns its fields.
    pub(crate) fn from_policy(param: &str, error: &PolicyError) -> Self {
        match error {
            PolicyError::Sampling { field, .. } => Self::about(field, error.to_string()),
            PolicyError::Sequence { .. }
            | PolicyError::ChatTemplate { .. }
            | PolicyError::NoChatTemplate { .. }
            | PolicyError::Tokenizer { .. } => Self::about(param, error.to_string()),
            _ => Self::failed(error),
        }
    }

    /// The refusal for an error of the engine.
    pub(crate) fn from_engine(error: EngineError) -> Self {
        match error {
            EngineError::Policy(error) => Self::from_policy("prompt", &error),
            EngineError::Aborted => Self::stopping(),
            EngineError::SlowReader => Self::slow_reader(),
            EngineError::EngineStopped => Self::failed("the engine has stopped"),
            other => Self::failed(other),
        }
    }

    /// How a request that it answers has ended.
    pub(crate) fn outcome(&self) -> Outcome {
        match (self.status.as_u16(), self.code) {
            (503, Some("stopping")) => Outcome::Stopping,
            (429 | 503, _) => Outcome::Overloaded,
            (500.., _) => Outcome::Failed,
            _ => Outcome::Refused,
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_to_be_retried(&self) -> bool {
        self.outcome() == Outcome::Overloaded
    }

    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let Self { message, param, code, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            // What is left of the request is not worth waiting for.
            StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_openais_format() {
        let refusal = Refusal::field("top_p", &json!(7), "a number above 0 and at most 1");
        assert_eq!(
            refusal.json(),
            json!({"error": {"message": "`top_p` must be a number above 0 and at most 1, not 7",
                "type": "invalid_request_error", "param": "top_p", "code": "invalid_value"}})
        );
    }

    #[test]
    fn an_overloaded_server_sends_retry_after() {
        let response = Refusal::queue_full().into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn an_overloaded_server_is_not_counted_as_one_that_stops() {
        assert_eq!(Refusal::stopping().outcome(), Outcome::Stopping);
        for refusal in [
            Refusal::queue_full(),
            Refusal::out_of_request_memory(),
            Refusal::over_share(),
            Refusal::too_many_connections(7),
        ] {
            assert_eq!(refusal.outcome(), Outcome::Overloaded);
        }
    }

    #[test]
    fn a_long_value_is_truncated() {
        let refusal = Refusal::field("stop", &json!("ä".repeat(1_000)), "less");
        assert!(refusal.message.len() < 150, "{}", refusal.message);
    }
}
