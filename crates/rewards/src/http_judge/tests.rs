use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::*;

/// A server on a free local port that responds with `answer` until it is dropped.
struct Server {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Server {
    fn start(answer: impl Fn(&Value) -> Response + Send + Sync + 'static) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let answer = Arc::new(answer);
        let handler = move |Json(body): Json<Value>| {
            let response = answer(&body);
            async move { response }
        };
        let app = axum::Router::new().route("/v1/chat/completions", axum::routing::post(handler));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, _runtime: runtime }
    }

    fn judge(&self) -> HttpJudge {
        let client = ClientOptions {
            max_retries: 0,
            timeout: Duration::from_secs(30),
            ..ClientOptions::new([format!("http://{}/v1", self.address)])
        };
        HttpJudge::new(HttpJudgeOptions { concurrency: 3, ..HttpJudgeOptions::new(client, "ref") })
            .unwrap()
    }
}

fn chat_reply(text: &str) -> Response {
    Json(json!({"choices": [{"message": {"role": "assistant", "content": text}}]})).into_response()
}

fn user_text(body: &Value) -> &str {
    body["messages"][1]["content"].as_str().unwrap()
}

fn prompts(texts: &[&str]) -> Vec<JudgePrompt> {
    texts
        .iter()
        .map(|text| JudgePrompt { system: "judge".to_owned(), user: (*text).to_owned() })
        .collect()
}

#[test]
fn replies_keep_the_order_of_the_prompts() {
    let server = Server::start(|body| chat_reply(&format!("re {}", user_text(body))));
    let texts: Vec<String> = (0..20).map(|index| index.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let replies = server.judge().reply(&prompts(&texts)).unwrap();
    let expected: Vec<_> = texts.iter().map(|text| Some(format!("re {text}"))).collect();
    assert_eq!(replies, expected);
}

#[test]
fn a_request_has_the_settings_of_the_official_run() {
    let seen = Arc::new(Mutex::new(Value::Null));
    let keep = Arc::clone(&seen);
    let server = Server::start(move |body| {
        *keep.lock().unwrap() = body.clone();
        chat_reply("B")
    });
    server.judge().reply(&prompts(&["why"])).unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        json!({
            "model": "ref",
            "messages": [
                {"role": "system", "content": "judge"},
                {"role": "user", "content": "why"},
            ],
            "temperature": 0.1,
            "max_tokens": 10,
        })
    );
}

#[test]
fn a_failed_request_drops_only_its_own_reply() {
    let server = Server::start(|body| match user_text(body) {
        "bad" => (StatusCode::INTERNAL_SERVER_ERROR, "busy").into_response(),
        _ => chat_reply("B"),
    });
    let replies = server.judge().reply(&prompts(&["one", "bad", "two"])).unwrap();
    assert_eq!(replies, [Some("B".to_owned()), None, Some("B".to_owned())]);
}

#[test]
fn a_server_without_the_model_is_an_error() {
    let server = Server::start(|_| (StatusCode::NOT_FOUND, "no model `ref`").into_response());
    let error = server.judge().reply(&prompts(&["why"])).unwrap_err().to_string();
    assert!(error.starts_with("the consistency judge failed:"), "{error}");
    assert!(error.contains("404") && error.contains("no model `ref`"), "{error}");
}

#[test]
fn an_empty_batch_needs_no_server() {
    let client = ClientOptions::new(["http://127.0.0.1:9/v1"]);
    let judge = HttpJudge::new(HttpJudgeOptions::new(client, "ref")).unwrap();
    assert_eq!(judge.reply(&[]).unwrap(), Vec::<Option<String>>::new());
}

#[test]
fn an_invalid_base_url_is_rejected_at_construction() {
    let client = ClientOptions::new(["not a url"]);
    assert!(matches!(
        HttpJudge::new(HttpJudgeOptions::new(client, "ref")),
        Err(Error::Judge { .. })
    ));
}

#[test]
fn calling_from_async_code_is_an_error() {
    let client = ClientOptions::new(["http://127.0.0.1:9/v1"]);
    let judge = HttpJudge::new(HttpJudgeOptions::new(client, "ref")).unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    let result = runtime.block_on(async { judge.reply(&prompts(&["why"])) });
    assert!(matches!(result, Err(Error::BlockingCall)));
}

#[test]
fn a_judge_that_answers_no_request_at_all_is_an_error() {
    let server =
        Server::start(|_| (StatusCode::INTERNAL_SERVER_ERROR, "overloaded").into_response());
    let error = server.judge().reply(&prompts(&["one", "two"])).unwrap_err().to_string();
    assert!(
        error.starts_with("the consistency judge failed: no response to any of 2 requests: "),
        "{error}"
    );
    // A refused request is answered: the server is alive.
    let server = Server::start(|_| (StatusCode::BAD_REQUEST, "too long").into_response());
    assert_eq!(server.judge().reply(&prompts(&["one", "two"])).unwrap(), [None, None]);
}

#[test]
fn a_wait_for_the_judge_ends_when_the_run_stops() {
    // Accepts connections and never replies.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let options = ClientOptions { timeout: Duration::from_secs(3600), ..ClientOptions::new([url]) };
    let judge = HttpJudge::new(HttpJudgeOptions::new(options, "ref")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            let connection = listener.accept().unwrap();
            stop.store(true, Ordering::Relaxed);
            drop(connection);
        });
        let replies = judge.reply_until(&prompts(&["why"]), stop);
        assert!(matches!(replies, Err(Error::Interrupted)), "{replies:?}");
    });
}
