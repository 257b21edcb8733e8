//! A chat server that answers by a word of the question, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Conduct {
    requests: Vec<Value>,
    refused_word: Option<String>,
}

type Shared = Arc<Mutex<Conduct>>;

pub(crate) struct Server {
    port: u16,
    conduct: Shared,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let conduct = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/v1/chat/completions", axum::routing::post(reply))
            .with_state(Arc::clone(&conduct));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, conduct, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Requests that hold `word` are refused; none are where there is no word.
    pub(crate) fn refuse(&self, word: Option<&str>) {
        self.conduct.lock().unwrap().refused_word = word.map(str::to_owned);
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.conduct.lock().unwrap().requests.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `easy`: always B. `even`: B and A in turn. `odd`: no option. Else A.
async fn reply(State(conduct): State<Shared>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let asked = request["messages"][1]["content"].as_str().unwrap().to_owned();
    let mut conduct = conduct.lock().unwrap();
    let before = conduct.requests.iter().filter(|of| of["messages"] == request["messages"]).count();
    conduct.requests.push(request);
    if conduct.refused_word.as_ref().is_some_and(|word| asked.contains(word.as_str())) {
        return (StatusCode::BAD_REQUEST, "{\"error\": \"not this\"}").into_response();
    }
    let words = match () {
        () if asked.contains("easy") => "<answer>B</answer>",
        () if asked.contains("even") && before % 2 == 0 => "B.",
        () if asked.contains("odd") => "I do not know",
        () => "<think>B?</think><answer>A</answer>",
    };
    json!({"choices": [{"message": {"role": "assistant", "content": words},
        "finish_reason": "stop"}]})
    .to_string()
    .into_response()
}
