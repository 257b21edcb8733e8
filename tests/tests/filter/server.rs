//! A chat server whose response depends on a word of the question, and that records its requests.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Behavior {
    requests: Vec<Value>,
    refused_word: Option<String>,
}

type Shared = Arc<Mutex<Behavior>>;

pub(crate) struct Server {
    port: u16,
    behavior: Shared,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let behavior = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/v1/chat/completions", axum::routing::post(reply))
            .with_state(Arc::clone(&behavior));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, behavior, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Refuses requests that contain `word`; `None` refuses none.
    pub(crate) fn refuse(&self, word: Option<&str>) {
        self.behavior.lock().unwrap().refused_word = word.map(str::to_owned);
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.behavior.lock().unwrap().requests.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `easy`: always B. `even`: alternately B and A. `odd`: no option. Otherwise A.
async fn reply(State(behavior): State<Shared>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let question = request["messages"][1]["content"].as_str().unwrap().to_owned();
    let mut behavior = behavior.lock().unwrap();
    let before =
        behavior.requests.iter().filter(|it| it["messages"] == request["messages"]).count();
    behavior.requests.push(request);
    if behavior.refused_word.as_ref().is_some_and(|word| question.contains(word.as_str())) {
        return (StatusCode::BAD_REQUEST, "{\"error\": \"not this\"}").into_response();
    }
    let content = match () {
        () if question.contains("easy") => "<answer>B</answer>",
        () if question.contains("even") && before % 2 == 0 => "B.",
        () if question.contains("odd") => "I do not know",
        () => "<think>B?</think><answer>A</answer>",
    };
    json!({"choices": [{"message": {"role": "assistant", "content": content},
        "finish_reason": "stop"}]})
    .to_string()
    .into_response()
}
