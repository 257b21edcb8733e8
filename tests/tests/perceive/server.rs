//! A chat server that describes every picture in the same words, and that misbehaves on demand.

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

/// What a request gets in place of its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// 429 with a wait in seconds.
    TooManyRequests,
    /// 429 with a wait until a moment.
    TooManyRequestsUntil,
    InternalError,
    /// 503.
    Overloaded,
    /// 401.
    Unauthorized,
    Hang,
    /// Half a reply.
    HangInBody,
    /// A reply that says nothing.
    Silence,
    BrokenJson,
    CutConnection,
}

#[derive(Default)]
struct Conduct {
    faults: VecDeque<Fault>,
    answered: usize,
    hang_after: Option<usize>,
    /// How long an answer takes.
    pause: Duration,
    refused_word: Option<String>,
    filtered_word: Option<String>,
    /// So many replies about a word are not in the form that was asked for.
    mumbled: Vec<(String, usize)>,
    /// Replies of fewer tokens are cut off.
    least_tokens: u64,
    authorization: Option<String>,
    /// The words of each request.
    requests: Vec<String>,
}

type Shared = Arc<Mutex<Conduct>>;

pub(crate) struct Server {
    api: ChatApi,
    conduct: Shared,
}

impl Server {
    /// A server whose first requests get these faults.
    pub(crate) async fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = faults.into_iter().collect();
        let conduct = Arc::new(Mutex::new(Conduct { faults, ..Conduct::default() }));
        let api = ChatApi::start(axum::routing::post(reply), Arc::clone(&conduct)).await;
        Self { api, conduct }
    }

    pub(crate) fn base_url(&self) -> String {
        self.api.base_url()
    }

    /// From the `n`th answer on, nothing more is said.
    pub(crate) fn hang_after(&self, n: usize) {
        self.conduct.lock().unwrap().hang_after = Some(n);
    }

    /// From now on an answer takes so long.
    pub(crate) fn take(&self, pause: Duration) {
        self.conduct.lock().unwrap().pause = pause;
    }

    /// Requests that hold `word` are refused for good.
    pub(crate) fn refuse(&self, word: &str) {
        self.conduct.lock().unwrap().refused_word = Some(word.to_owned());
    }

    /// Requests that hold `word` are stopped by a filter.
    pub(crate) fn filter(&self, word: &str) {
        self.conduct.lock().unwrap().filtered_word = Some(word.to_owned());
    }

    /// The next `times` replies about two pictures and `word` are not in the form that was asked for.
    pub(crate) fn mumble(&self, word: &str, times: usize) {
        self.conduct.lock().unwrap().mumbled.push((word.to_owned(), times));
    }

    /// Replies to requests of fewer tokens are cut off.
    pub(crate) fn cut_off_at(&self, tokens: u64) {
        self.conduct.lock().unwrap().least_tokens = tokens;
    }

    /// How often anything was asked, whatever came of it.
    pub(crate) fn asked(&self) -> usize {
        self.conduct.lock().unwrap().requests.len()
    }

    /// The words of each request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.conduct.lock().unwrap().requests.clone()
    }

    pub(crate) fn answered(&self) -> usize {
        self.conduct.lock().unwrap().answered
    }

    pub(crate) fn faults_left(&self) -> usize {
        self.conduct.lock().unwrap().faults.len()
    }

    pub(crate) fn authorization(&self) -> Option<String> {
        self.conduct.lock().unwrap().authorization.clone()
    }
}

async fn reply(State(conduct): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let (fault, pause) = {
        let mut conduct = conduct.lock().unwrap();
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        conduct.authorization = authorization.map(str::to_owned);
        let words = words(&request);
        conduct.requests.push(words.clone());
        let holds = |word: &Option<String>| word.as_ref().is_some_and(|w| words.contains(w));
        if holds(&conduct.refused_word) {
            let error = json!({"error": {"message": "not allowed"}});
            return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
        }
        if holds(&conduct.filtered_word) {
            let error = json!({"error": {"message": "not this one", "code": "content_filter"}});
            return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
        }
        let silent = conduct.hang_after.is_some_and(|n| conduct.answered >= n);
        (conduct.faults.pop_front().or(silent.then_some(Fault::Hang)), conduct.pause)
    };
    tokio::time::sleep(pause).await;
    match fault {
        Some(fault) => misbehave(fault).await,
        None => {
            let (mut said, pictures) = describe(&request);
            let mut conduct = conduct.lock().unwrap();
            conduct.answered += 1;
            let words = words(&request);
            let mumbled = conduct.mumbled.iter_mut();
            let mut mumbled = mumbled
                .filter(|(word, left)| pictures > 1 && *left > 0 && words.contains(word.as_str()));
            if let Some((_, left)) = mumbled.next() {
                *left -= 1;
                said = "well,\na lamp";
            }
            let cut_off = request["max_tokens"].as_u64().is_some_and(|n| n < conduct.least_tokens);
            let finish_reason = if cut_off { "length" } else { "stop" };
            let reply = json!({
                "choices": [{"message": {"role": "assistant", "content": said},
                    "finish_reason": finish_reason}],
                "usage": {"prompt_tokens": 100 * pictures, "completion_tokens": 12}});
            reply.to_string().into_response()
        }
    }
}

async fn misbehave(fault: Fault) -> Response {
    match fault {
        Fault::TooManyRequests => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "slow down").into_response()
        }
        Fault::TooManyRequestsUntil => {
            // A moment that is past asks for no wait.
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
        Fault::Silence => {
            json!({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]})
                .to_string()
                .into_response()
        }
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

/// The words of a request's first message.
fn words(request: &Value) -> String {
    let parts = request["messages"][0]["content"].as_array().unwrap();
    parts.iter().filter_map(|part| part["text"].as_str()).collect()
}

/// Words about a request's pictures, which must be JPEG files, and how many there are.
fn describe(request: &Value) -> (&'static str, usize) {
    let parts = request["messages"][0]["content"].as_array().unwrap();
    let pictures = parts.iter().filter_map(|part| part["image_url"]["url"].as_str());
    let jpegs = pictures.filter(|url| url.starts_with("data:image/jpeg;base64,/9j/")).count();
    match jpegs {
        1 => ("a red\ndoor ahead", 1),
        2 => ("1. Rotate left\n2. a lamp.\n3. nothing of it.", 2),
        n => panic!("{n} pictures"),
    }
}
