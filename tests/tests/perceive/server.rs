//! A chat server that describes every picture in the same words, and that misbehaves on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// What a request gets in place of its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    TooManyRequests,
    InternalError,
    Hang,
    BrokenJson,
    CutConnection,
}

#[derive(Default)]
struct Conduct {
    faults: VecDeque<Fault>,
    answered: usize,
    hang_after: Option<usize>,
    refused_word: Option<String>,
    authorization: Option<String>,
}

type Shared = Arc<Mutex<Conduct>>;

pub(crate) struct Server {
    port: u16,
    conduct: Shared,
    task: JoinHandle<()>,
}

impl Server {
    /// A server whose first requests get these faults.
    pub(crate) async fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = faults.into_iter().collect();
        let conduct = Arc::new(Mutex::new(Conduct { faults, ..Conduct::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/v1/chat/completions", axum::routing::post(reply))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&conduct));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, conduct, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// From the `n`th answer on, nothing more is said.
    pub(crate) fn hang_after(&self, n: usize) {
        self.conduct.lock().unwrap().hang_after = Some(n);
    }

    /// Requests that hold `word` are refused for good.
    pub(crate) fn refuse(&self, word: &str) {
        self.conduct.lock().unwrap().refused_word = Some(word.to_owned());
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

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn reply(State(conduct): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let fault = {
        let mut conduct = conduct.lock().unwrap();
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        conduct.authorization = authorization.map(str::to_owned);
        let refused = conduct.refused_word.as_ref();
        if refused.is_some_and(|word| request.to_string().contains(word.as_str())) {
            let error = json!({"error": {"message": "not allowed"}});
            return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
        }
        let silent = conduct.hang_after.is_some_and(|n| conduct.answered >= n);
        conduct.faults.pop_front().or(silent.then_some(Fault::Hang))
    };
    match fault {
        Some(fault) => misbehave(fault).await,
        None => {
            let (words, pictures) = describe(&request);
            conduct.lock().unwrap().answered += 1;
            let reply = json!({
                "choices": [{"message": {"role": "assistant", "content": words},
                    "finish_reason": "stop"}],
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
