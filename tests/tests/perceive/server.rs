//! A chat server that returns the same caption for every image, with injected faults.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embodied_r_test_server::{Request, Response};
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
    hang_after: Option<usize>,
    /// The latency of a response.
    latency: Duration,
    refused_word: Option<String>,
    filtered_word: Option<String>,
    /// Words, with the number of malformed responses to requests that contain them.
    malformed: Vec<(String, usize)>,
    /// Responses to requests for fewer tokens are truncated.
    min_tokens: u64,
}

pub(crate) struct Server {
    api: embodied_r_test_server::Server,
    behavior: Arc<Mutex<Behavior>>,
}

impl Server {
    /// Starts a server whose first requests get these faults.
    pub(crate) fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = faults.into_iter().collect();
        let behavior = Arc::new(Mutex::new(Behavior { faults, ..Behavior::default() }));
        let of_server = Arc::clone(&behavior);
        let reply = move |request: &Request| reply(request, &mut of_server.lock().unwrap());
        let api = embodied_r_test_server::Server::chat(reply);
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
        self.api.requests().len()
    }

    /// The text of each request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.api.bodies().iter().map(text).collect()
    }

    /// The number of requests that got a response.
    pub(crate) fn answered(&self) -> usize {
        self.api.answered()
    }

    pub(crate) fn faults_left(&self) -> usize {
        self.behavior.lock().unwrap().faults.len()
    }

    /// The header of the last request.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.api.requests().last()?.header("authorization").map(str::to_owned)
    }
}

fn reply(request: &Request, behavior: &mut Behavior) -> Response {
    let body = request.json();
    let text = text(&body);
    let contains = |word: &Option<String>| word.as_ref().is_some_and(|w| text.contains(w));
    if contains(&behavior.refused_word) {
        return Response::new(400, json!({"error": {"message": "not allowed"}}).to_string());
    }
    if contains(&behavior.filtered_word) {
        let error = json!({"error": {"message": "not this one", "code": "content_filter"}});
        return Response::new(400, error.to_string());
    }
    let hangs = behavior.hang_after.is_some_and(|n| request.index >= n);
    let fault = behavior.faults.pop_front().or(hangs.then_some(Fault::Hang));
    let response = match fault {
        Some(fault) => inject(fault),
        None => answer(&body, &text, behavior),
    };
    response.after(behavior.latency)
}

fn answer(request: &Value, text: &str, behavior: &mut Behavior) -> Response {
    let (mut content, images) = describe(request);
    let mut malformed = behavior.malformed.iter_mut();
    let is_malformed =
        |(word, left): &&mut (String, usize)| images > 1 && *left > 0 && text.contains(&**word);
    if let Some((_, left)) = malformed.find(is_malformed) {
        *left -= 1;
        content = "well,\na lamp";
    }
    let truncated = request["max_tokens"].as_u64().is_some_and(|n| n < behavior.min_tokens);
    let finish_reason = if truncated { "length" } else { "stop" };
    Response::json(&json!({
        "choices": [{"message": {"role": "assistant", "content": content},
            "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 100 * images, "completion_tokens": 12}}))
}

fn inject(fault: Fault) -> Response {
    let busy = Response::new(429, "slow down");
    let half = Response::json(&json!({"choices": []}));
    match fault {
        Fault::TooManyRequests => busy.header("retry-after", "1"),
        // A date in the past means no wait.
        Fault::TooManyRequestsUntil => busy.header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
        Fault::InternalError => Response::new(500, "out of memory"),
        Fault::Overloaded => Response::new(503, "loading"),
        Fault::Unauthorized => Response::new(401, "who are you?"),
        Fault::Hang => Response::hang(),
        Fault::HangInBody => half.hang_at(11),
        Fault::CutConnection => half.cut_at(11),
        Fault::Empty => Response::completion(""),
        Fault::BrokenJson => {
            Response::new(200, "{\"choices\": [{\"message\": {\"content\": \"a red")
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
