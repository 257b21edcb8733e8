//! A chat server that misbehaves at random in every way, and knows what it has answered.

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

/// A random number generator, good enough to misbehave by.
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

/// A reply that was sent whole.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// In the reply's text, so that it can be found again.
    pub(crate) serial: u64,
    /// The process that got it.
    pub(crate) process: usize,
    /// Whether it is to be kept for good, which an empty one and a refusal are not.
    pub(crate) lasting: bool,
    /// Whether it is to be kept at all, which an empty one is not.
    pub(crate) kept: bool,
}

struct Conduct {
    random: Random,
    process: usize,
    asked: usize,
    next_serial: u64,
    /// By the whole request.
    answers: BTreeMap<String, Vec<Answer>>,
    faults: BTreeMap<&'static str, usize>,
}

type Shared = Arc<Mutex<Conduct>>;

pub(crate) struct Server {
    api: ChatApi,
    conduct: Shared,
}

impl Server {
    pub(crate) async fn start(seed: u64) -> Self {
        let conduct = Arc::new(Mutex::new(Conduct {
            random: Random(seed | 1),
            process: 0,
            asked: 0,
            next_serial: 1000,
            answers: BTreeMap::new(),
            faults: BTreeMap::new(),
        }));
        let api = ChatApi::start(axum::routing::post(reply), Arc::clone(&conduct)).await;
        Self { api, conduct }
    }

    pub(crate) fn base_url(&self) -> String {
        self.api.base_url()
    }

    /// From now on another process asks.
    pub(crate) fn next_process(&self) -> usize {
        let mut conduct = self.conduct.lock().unwrap();
        conduct.process += 1;
        conduct.process
    }

    /// How many requests have come in.
    pub(crate) fn asked(&self) -> usize {
        self.conduct.lock().unwrap().asked
    }

    /// What was answered to each request since the last call of this.
    pub(crate) fn take_answers(&self) -> Vec<Vec<Answer>> {
        std::mem::take(&mut self.conduct.lock().unwrap().answers).into_values().collect()
    }

    /// How often it misbehaved in which way.
    pub(crate) fn faults(&self) -> BTreeMap<&'static str, usize> {
        self.conduct.lock().unwrap().faults.clone()
    }
}

/// Ways to misbehave, each in one of two hundred requests.
const FAULTS: [&str; 14] = [
    "429",
    "429 until a past date",
    "500",
    "503",
    "503 with a wait",
    "broken JSON",
    "no JSON",
    "cut in the body",
    "error in a success",
    "empty",
    "malformed",
    "cut off at the limit",
    "refusal",
    "filter",
];

/// Those that take a second, each in one of four hundred.
const SLOW_FAULTS: [&str; 4] = ["429 in a second", "429 until a date", "hang", "hang in the body"];

async fn reply(State(conduct): State<Shared>, body: Bytes) -> Response {
    let (fault, wait) = {
        let mut conduct = conduct.lock().unwrap();
        conduct.asked += 1;
        let slow = SLOW_FAULTS.get(conduct.random.below(400) as usize).copied();
        let fault = slow.or_else(|| FAULTS.get(conduct.random.below(200) as usize).copied());
        if let Some(fault) = fault {
            *conduct.faults.entry(fault).or_default() += 1;
        }
        (fault.unwrap_or("none"), Duration::from_millis(conduct.random.below(12)))
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
        "503 with a wait" => retry_after(StatusCode::SERVICE_UNAVAILABLE, "0".into()),
        "hang" => std::future::pending().await,
        "hang in the body" => part(futures_util::stream::pending().boxed()),
        "cut in the body" => {
            let cut = async { Err(std::io::Error::other("cut")) };
            part(futures_util::stream::once(cut).boxed())
        }
        "broken JSON" => "{\"choices\": [{\"message\": {\"content\": \"a red".into_response(),
        "no JSON" => "<html>bad gateway</html>".into_response(),
        "error in a success" => {
            json!({"error": {"message": "worker died"}}).to_string().into_response()
        }
        "filter" => {
            let error = json!({"error": {"message": "not this one", "code": "content_filter"}});
            (StatusCode::BAD_REQUEST, error.to_string()).into_response()
        }
        words => answer(&conduct, text, words),
    }
}

/// Half of a reply, and what comes then.
fn part(rest: futures_util::stream::BoxStream<'static, std::io::Result<&'static str>>) -> Response {
    let half = futures_util::stream::iter([Ok("{\"choices\": ")]);
    Body::from_stream(half.chain(rest)).into_response()
}

/// A reply that tells the question's own word and a serial number.
fn answer(conduct: &Shared, text: String, how: &str) -> Response {
    let request: Value = serde_json::from_str(&text).unwrap();
    let parts = request["messages"][0]["content"].as_array().unwrap();
    let pictures = parts.iter().filter(|part| part["type"] == "image_url").count();
    let words = parts.last().unwrap()["text"].as_str().unwrap();
    let word = words.split_once("Question: ").unwrap().1.split_once('?').unwrap().0;
    let mut conduct = conduct.lock().unwrap();
    let serial = conduct.next_serial;
    conduct.next_serial += 1;
    let answer = Answer {
        serial,
        process: conduct.process,
        lasting: !matches!(how, "empty" | "refusal"),
        kept: how != "empty",
    };
    conduct.answers.entry(text).or_default().push(answer);
    let whole = match pictures {
        1 => format!("{word} serial {serial}."),
        _ => format!("1. Rotate left\n2. {word} serial {serial}.\n3. Nothing of it."),
    };
    let (said, refusal, reason) = match how {
        "empty" => (Value::Null, Value::Null, "stop"),
        "malformed" => (json!(format!("{word} serial {serial}")), Value::Null, "stop"),
        "cut off at the limit" => (json!(whole), Value::Null, "length"),
        "refusal" => (Value::Null, json!(format!("I will not tell, serial {serial}.")), "stop"),
        _ => (json!(whole), Value::Null, "stop"),
    };
    json!({
        "id": serial.to_string(),
        "choices": [{"message": {"role": "assistant", "content": said, "refusal": refusal},
            "finish_reason": reason}],
        "usage": {"prompt_tokens": serial, "completion_tokens": 1}})
    .to_string()
    .into_response()
}
