//! A chat server that returns the same caption for every image, with injected faults.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use embodied_r_tests::ChatApi;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

/// A fault returned instead of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// 429 with `Retry-After` in seconds.
    TooManyRequests,
    /// 429 with `Retry-After` as a date.
    TooManyRequestsUntil,
    InternalError,
    /// 503.
    Overloaded,
    /// 401.
    Unauthorized,
    Hang,
    /// Half a response, then silence.
    HangInBody,
    /// A response without content.
    Empty,
    BrokenJson,
    CutConnection,
}

#[derive(Default)]
struct Behavior {
    faults: VecDeque<Fault>,
    answered: usize,
    hang_after: Option<usize>,
    /// The latency of a response.
    latency: Duration,
    refused_word: Option<String>,
    filtered_word: Option<String>,
    /// Words, with the number of malformed responses to requests that contain them.
    malformed: Vec<(String, usize)>,
    /// Responses to requests for fewer tokens are truncated.
    min_tokens: u64,
    authorization: Option<String>,
    /// The text of each request.
    requests: Vec<String>,
}

type Shared = Arc<Mutex<Behavior>>;

pub(crate) struct Server {
    api: ChatApi,
    behavior: Shared,
}

impl Server {
    /// Starts a server whose first requests get these faults.
    pub(crate) async fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = faults.into_iter().collect();
        let behavior = Arc::new(Mutex::new(Behavior { faults, ..Behavior::default() }));
        let api = ChatApi::start(axum::routing::post(reply), Arc::clone(&behavior)).await;
        Self { api, behavior }
    }

    pub(crate) fn base_url(&self) -> String {
        self.api.base_url()
    }

    /// Hangs after `n` responses.
    pub(crate) fn hang_after(&self, n: usize) {
        self.behavior.lock().unwrap().hang_after = Some(n);
    }

    /// From now on, responses have this latency.
    pub(crate) fn delay(&self, latency: Duration) {
        self.behavior.lock().unwrap().latency = latency;
    }

    /// Rejects requests that contain `word`.
    pub(crate) fn refuse(&self, word: &str) {
        self.behavior.lock().unwrap().refused_word = Some(word.to_owned());
    }

    /// Rejects requests that contain `word` as by a content filter.
    pub(crate) fn filter(&self, word: &str) {
        self.behavior.lock().unwrap().filtered_word = Some(word.to_owned());
    }

    /// Malforms the next `times` responses to requests with two images and `word`.
    pub(crate) fn malform(&self, word: &str, times: usize) {
        self.behavior.lock().unwrap().malformed.push((word.to_owned(), times));
    }

    /// Truncates responses to requests for fewer tokens.
    pub(crate) fn truncate_below(&self, tokens: u64) {
        self.behavior.lock().unwrap().min_tokens = tokens;
    }

    /// The number of requests so far, with any outcome.
    pub(crate) fn request_count(&self) -> usize {
        self.behavior.lock().unwrap().requests.len()
    }

    /// The text of each request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.behavior.lock().unwrap().requests.clone()
    }

    pub(crate) fn answered(&self) -> usize {
        self.behavior.lock().unwrap().answered
    }

    pub(crate) fn faults_left(&self) -> usize {
        self.behavior.lock().unwrap().faults.len()
    }

    pub(crate) fn authorization(&self) -> Option<String> {
        self.behavior.lock().unwrap().authorization.clone()
    }
}

async fn reply(State(behavior): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let (fault, latency) = {
        let mut behavior = behavior.lock().unwrap();
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        behavior.authorization = authorization.map(str::to_owned);
        let text = text(&request);
        behavior.requests.push(text.clone());
        let contains = |word: &Option<String>| word.as_ref().is_some_and(|w| text.contains(w));
        if contains(&behavior.refused_word) {
            let error = json!({"error": {"message": "not allowed"}});
            return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
        }
        if contains(&behavior.filtered_word) {
            let error = json!({"error": {"message": "not this one", "code": "content_filter"}});
            return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
        }
        let hangs = behavior.hang_after.is_some_and(|n| behavior.answered >= n);
        (behavior.faults.pop_front().or(hangs.then_some(Fault::Hang)), behavior.latency)
    };
    tokio::time::sleep(latency).await;
    match fault {
        Some(fault) => inject(fault).await,
        None => {
            let (mut content, images) = describe(&request);
            let mut behavior = behavior.lock().unwrap();
            behavior.answered += 1;
            let text = text(&request);
            let malformed = behavior.malformed.iter_mut();
            let mut malformed = malformed
                .filter(|(word, left)| images > 1 && *left > 0 && text.contains(word.as_str()));
            if let Some((_, left)) = malformed.next() {
                *left -= 1;
                content = "well,\na lamp";
            }
            let truncated = request["max_tokens"].as_u64().is_some_and(|n| n < behavior.min_tokens);
            let finish_reason = if truncated { "length" } else { "stop" };
            let reply = json!({
                "choices": [{"message": {"role": "assistant", "content": content},
                    "finish_reason": finish_reason}],
                "usage": {"prompt_tokens": 100 * images, "completion_tokens": 12}});
            reply.to_string().into_response()
        }
    }
}

async fn inject(fault: Fault) -> Response {
    match fault {
        Fault::TooManyRequests => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "slow down").into_response()
        }
        Fault::TooManyRequestsUntil => {
            // A date in the past means no wait.
            let until = [("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")];
            (StatusCode::TOO_MANY_REQUESTS, until, "slow down").into_response()
        }
        Fault::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "loading").into_response(),
        Fault::Unauthorized => (StatusCode::UNAUTHORIZED, "who are you?").into_response(),
        Fault::HangInBody => {
            let half = futures_util::stream::iter([Ok::<_, std::io::Error>("{\"choices\": ")]);
            let rest = futures_util::stream::pending();
            Body::from_stream(half.chain(rest)).into_response()
        }
        Fault::Empty => json!({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]})
            .to_string()
            .into_response(),
        Fault::InternalError => {
            (StatusCode::INTERNAL_SERVER_ERROR, "out of memory").into_response()
        }
        Fault::Hang => std::future::pending().await,
        Fault::BrokenJson => "{\"choices\": [{\"message\": {\"content\": \"a red".into_response(),
        Fault::CutConnection => {
            let cut = [Ok("{\"choices\": "), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures_util::stream::iter(cut)).into_response()
        }
    }
}

/// The text of a request's first message.
fn text(request: &Value) -> String {
    let parts = request["messages"][0]["content"].as_array().unwrap();
    parts.iter().filter_map(|part| part["text"].as_str()).collect()
}

/// The caption for a request's images, which must be JPEG, and their number.
fn describe(request: &Value) -> (&'static str, usize) {
    let parts = request["messages"][0]["content"].as_array().unwrap();
    let images = parts.iter().filter_map(|part| part["image_url"]["url"].as_str());
    let jpegs = images.filter(|url| url.starts_with("data:image/jpeg;base64,/9j/")).count();
    match jpegs {
        1 => ("a red\ndoor ahead", 1),
        2 => ("1. Rotate left\n2. a lamp.\n3. nothing of it.", 2),
        n => panic!("{n} images"),
    }
}
