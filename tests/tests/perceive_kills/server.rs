//! A chat server that injects every kind of fault at random, and records its responses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use embodied_r_tests::ChatApi;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

/// A simple random number generator (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A response that was sent completely.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// Its serial number, which is also its token count, so that it can be identified.
    pub(crate) serial: u64,
    /// The process that received it.
    pub(crate) process: usize,
    /// Whether it is final and must be kept: empty responses and refusals are not.
    pub(crate) is_final: bool,
    /// Whether it must be cached: empty responses are not.
    pub(crate) is_cached: bool,
}

struct Behavior {
    random: Random,
    process: usize,
    requests: usize,
    next_serial: u64,
    /// By the text of the request.
    answers: BTreeMap<String, Vec<Answer>>,
    faults: BTreeMap<&'static str, usize>,
}

type Shared = Arc<Mutex<Behavior>>;

pub(crate) struct Server {
    api: ChatApi,
    behavior: Shared,
}

impl Server {
    pub(crate) async fn start(seed: u64) -> Self {
        let behavior = Arc::new(Mutex::new(Behavior {
            random: Random(seed | 1),
            process: 0,
            requests: 0,
            next_serial: 1000,
            answers: BTreeMap::new(),
            faults: BTreeMap::new(),
        }));
        let api = ChatApi::start(axum::routing::post(reply), Arc::clone(&behavior)).await;
        Self { api, behavior }
    }

    pub(crate) fn base_url(&self) -> String {
        self.api.base_url()
    }

    /// Attributes requests from now on to another process.
    pub(crate) fn next_process(&self) -> usize {
        let mut behavior = self.behavior.lock().unwrap();
        behavior.process += 1;
        behavior.process
    }

    /// The number of requests so far.
    pub(crate) fn request_count(&self) -> usize {
        self.behavior.lock().unwrap().requests
    }

    /// The responses to each distinct request since the last call.
    pub(crate) fn take_answers(&self) -> Vec<Vec<Answer>> {
        std::mem::take(&mut self.behavior.lock().unwrap().answers).into_values().collect()
    }

    /// How often each fault was injected.
    pub(crate) fn faults(&self) -> BTreeMap<&'static str, usize> {
        self.behavior.lock().unwrap().faults.clone()
    }
}

/// Faults, each injected into one in 200 requests.
const FAULTS: [&str; 14] = [
    "429",
    "429 until a past date",
    "500",
    "503",
    "503 with Retry-After",
    "broken JSON",
    "no JSON",
    "connection cut in the body",
    "error with status 200",
    "empty",
    "malformed",
    "truncated",
    "refusal",
    "filter",
];

/// Faults that take a second, each injected into one in 400 requests.
const SLOW_FAULTS: [&str; 4] = ["429 in a second", "429 until a date", "hang", "hang in the body"];

async fn reply(State(behavior): State<Shared>, body: Bytes) -> Response {
    let (fault, wait) = {
        let mut behavior = behavior.lock().unwrap();
        behavior.requests += 1;
        let slow = SLOW_FAULTS.get(behavior.random.below(400) as usize).copied();
        let fault = slow.or_else(|| FAULTS.get(behavior.random.below(200) as usize).copied());
        if let Some(fault) = fault {
            *behavior.faults.entry(fault).or_default() += 1;
        }
        (fault.unwrap_or("none"), Duration::from_millis(behavior.random.below(12)))
    };
    tokio::time::sleep(wait).await;
    let retry_after =
        |status, wait: String| (status, [("retry-after", wait)], "slow down").into_response();
    let busy = StatusCode::TOO_MANY_REQUESTS;
    let text = String::from_utf8(body.into()).unwrap();
    match fault {
        "429" => retry_after(busy, "0".into()),
        "429 in a second" => retry_after(busy, "1".into()),
        "429 until a past date" => retry_after(busy, "Sun, 06 Nov 1994 08:49:37 GMT".into()),
        "429 until a date" => {
            let soon = std::time::SystemTime::now() + Duration::from_secs(1);
            retry_after(busy, httpdate::fmt_http_date(soon))
        }
        "500" => (StatusCode::INTERNAL_SERVER_ERROR, "out of memory").into_response(),
        "503" => (StatusCode::SERVICE_UNAVAILABLE, "loading").into_response(),
        "503 with Retry-After" => retry_after(StatusCode::SERVICE_UNAVAILABLE, "0".into()),
        "hang" => std::future::pending().await,
        "hang in the body" => part(futures_util::stream::pending().boxed()),
        "connection cut in the body" => {
            let cut = async { Err(std::io::Error::other("cut")) };
            part(futures_util::stream::once(cut).boxed())
        }
        "broken JSON" => "{\"choices\": [{\"message\": {\"content\": \"a red".into_response(),
        "no JSON" => "<html>bad gateway</html>".into_response(),
        "error with status 200" => {
            json!({"error": {"message": "worker died"}}).to_string().into_response()
        }
        "filter" => {
            let error = json!({"error": {"message": "not this one", "code": "content_filter"}});
            (StatusCode::BAD_REQUEST, error.to_string()).into_response()
        }
        fault => answer(&behavior, text, fault),
    }
}

/// Half of a response, then `rest`.
fn part(rest: futures_util::stream::BoxStream<'static, std::io::Result<&'static str>>) -> Response {
    let half = futures_util::stream::iter([Ok("{\"choices\": ")]);
    Body::from_stream(half.chain(rest)).into_response()
}

/// A response with the question's own word and a serial number.
fn answer(behavior: &Shared, text: String, fault: &str) -> Response {
    let request: Value = serde_json::from_str(&text).unwrap();
    let parts = request["messages"][0]["content"].as_array().unwrap();
    let images = parts.iter().filter(|part| part["type"] == "image_url").count();
    let prompt = parts.last().unwrap()["text"].as_str().unwrap();
    let word = prompt.split_once("Question: ").unwrap().1.split_once('?').unwrap().0;
    let mut behavior = behavior.lock().unwrap();
    let serial = behavior.next_serial;
    behavior.next_serial += 1;
    let answer = Answer {
        serial,
        process: behavior.process,
        is_final: !matches!(fault, "empty" | "refusal"),
        is_cached: fault != "empty",
    };
    behavior.answers.entry(text).or_default().push(answer);
    let caption = match images {
        1 => format!("{word} serial {serial}."),
        _ => format!("1. Rotate left\n2. {word} serial {serial}.\n3. Nothing of it."),
    };
    let (content, refusal, reason) = match fault {
        "empty" => (Value::Null, Value::Null, "stop"),
        "malformed" => (json!(format!("{word} serial {serial}")), Value::Null, "stop"),
        "truncated" => (json!(caption), Value::Null, "length"),
        "refusal" => {
            (Value::Null, json!(format!("I cannot describe this, serial {serial}.")), "stop")
        }
        _ => (json!(caption), Value::Null, "stop"),
    };
    json!({
        "id": serial.to_string(),
        "choices": [{"message": {"role": "assistant", "content": content, "refusal": refusal},
            "finish_reason": reason}],
        "usage": {"prompt_tokens": serial, "completion_tokens": 1}})
    .to_string()
    .into_response()
}
