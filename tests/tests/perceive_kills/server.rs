//! A chat server that injects every kind of fault at random, and records its responses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embodied_r_test_server::{Request, Response};
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

/// A response to a process, which may be killed before it receives it.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// Its serial number, which is also its token count, so that it can be identified.
    pub(crate) serial: u64,
    /// The process that sent the request.
    pub(crate) process: usize,
    /// Whether it is final and must be kept: empty responses and refusals are not.
    pub(crate) is_final: bool,
    /// Whether it must be cached: empty responses are not.
    pub(crate) is_cached: bool,
}

struct Behavior {
    random: Random,
    process: usize,
    next_serial: u64,
    /// By the text of the request.
    answers: BTreeMap<String, Vec<Answer>>,
    faults: BTreeMap<&'static str, usize>,
}

pub(crate) struct Server {
    api: embodied_r_test_server::Server,
    behavior: Arc<Mutex<Behavior>>,
}

impl Server {
    pub(crate) fn start(seed: u64) -> Self {
        let behavior = Arc::new(Mutex::new(Behavior {
            random: Random(seed | 1),
            process: 0,
            next_serial: 1000,
            answers: BTreeMap::new(),
            faults: BTreeMap::new(),
        }));
        let of_server = Arc::clone(&behavior);
        let reply = move |request: &Request| reply(request, &mut of_server.lock().unwrap());
        let api = embodied_r_test_server::Server::chat(reply);
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
        self.api.requests().len()
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

fn reply(request: &Request, behavior: &mut Behavior) -> Response {
    let slow = SLOW_FAULTS.get(behavior.random.below(400) as usize).copied();
    let fault = slow.or_else(|| FAULTS.get(behavior.random.below(200) as usize).copied());
    if let Some(fault) = fault {
        *behavior.faults.entry(fault).or_default() += 1;
    }
    let wait = Duration::from_millis(behavior.random.below(12));
    let retry_after =
        |status, wait: &str| Response::new(status, "slow down").header("retry-after", wait);
    let half = Response::json(&json!({"choices": []}));
    let response = match fault.unwrap_or("none") {
        "429" => retry_after(429, "0"),
        "429 in a second" => retry_after(429, "1"),
        "429 until a past date" => retry_after(429, "Sun, 06 Nov 1994 08:49:37 GMT"),
        "429 until a date" => {
            let soon = std::time::SystemTime::now() + Duration::from_secs(1);
            retry_after(429, &httpdate::fmt_http_date(soon))
        }
        "500" => Response::new(500, "out of memory"),
        "503" => Response::new(503, "loading"),
        "503 with Retry-After" => retry_after(503, "0"),
        "hang" => Response::hang(),
        "hang in the body" => half.hang_at(11),
        "connection cut in the body" => half.cut_at(11),
        "broken JSON" => Response::new(200, "{\"choices\": [{\"message\": {\"content\": \"a red"),
        "no JSON" => Response::new(200, "<html>bad gateway</html>"),
        "error with status 200" => Response::json(&json!({"error": {"message": "worker died"}})),
        "filter" => {
            let error = json!({"error": {"message": "not this one", "code": "content_filter"}});
            Response::new(400, error.to_string())
        }
        fault => answer(behavior, request, fault),
    };
    response.after(wait)
}

/// A response with the question's own word and a serial number.
fn answer(behavior: &mut Behavior, request: &Request, fault: &str) -> Response {
    let body = request.json();
    let parts = body["messages"][0]["content"].as_array().unwrap();
    let images = parts.iter().filter(|part| part["type"] == "image_url").count();
    let prompt = parts.last().unwrap()["text"].as_str().unwrap();
    let word = prompt.split_once("Question: ").unwrap().1.split_once('?').unwrap().0;
    let serial = behavior.next_serial;
    behavior.next_serial += 1;
    let answer = Answer {
        serial,
        process: behavior.process,
        is_final: !matches!(fault, "empty" | "refusal"),
        is_cached: fault != "empty",
    };
    behavior.answers.entry(body.to_string()).or_default().push(answer);
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
    Response::json(&json!({
        "id": serial.to_string(),
        "choices": [{"message": {"role": "assistant", "content": content, "refusal": refusal},
            "finish_reason": reason}],
        "usage": {"prompt_tokens": serial, "completion_tokens": 1}}))
}
