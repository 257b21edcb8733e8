use std::time::Duration;

use embodied_r_test_server::{Request, Response, Server};
use serde_json::json;

use super::*;

fn judge(server: &Server) -> HttpJudge {
    let client = ClientOptions {
        max_retries: 0,
        timeout: Duration::from_secs(30),
        ..ClientOptions::new([server.base_url()])
    };
    HttpJudge::new(HttpJudgeOptions { concurrency: 3, ..HttpJudgeOptions::new(client, "ref") })
        .unwrap()
}

fn user_text(request: &Request) -> String {
    request.json()["messages"][1]["content"].as_str().unwrap().to_owned()
}

fn prompts(texts: &[&str]) -> Vec<JudgePrompt> {
    texts
        .iter()
        .map(|text| JudgePrompt { system: "judge".to_owned(), user: (*text).to_owned() })
        .collect()
}

#[test]
fn replies_keep_the_order_of_the_prompts() {
    let server = Server::chat(|it| Response::completion(&format!("re {}", user_text(it))));
    let texts: Vec<String> = (0..20).map(|index| index.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let replies = judge(&server).reply(&prompts(&texts)).unwrap();
    let expected: Vec<_> = texts.iter().map(|text| Some(format!("re {text}"))).collect();
    assert_eq!(replies, expected);
}

#[test]
fn a_request_has_the_settings_of_the_official_run() {
    let server = Server::chat(|_| Response::completion("B"));
    judge(&server).reply(&prompts(&["why"])).unwrap();
    assert_eq!(
        server.bodies(),
        [json!({
            "model": "ref",
            "messages": [
                {"role": "system", "content": "judge"},
                {"role": "user", "content": "why"},
            ],
            "temperature": 0.1,
            "max_tokens": 10,
        })]
    );
}

#[test]
fn a_failed_request_drops_only_its_own_reply() {
    let server = Server::chat(|request| match user_text(request).as_str() {
        "bad" => Response::new(500, "busy"),
        _ => Response::completion("B"),
    });
    let replies = judge(&server).reply(&prompts(&["one", "bad", "two"])).unwrap();
    assert_eq!(replies, [Some("B".to_owned()), None, Some("B".to_owned())]);
}

#[test]
fn a_server_without_the_model_is_an_error() {
    let server = Server::chat(|_| Response::new(404, "no model `ref`"));
    let error = judge(&server).reply(&prompts(&["why"])).unwrap_err().to_string();
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
    let server = Server::chat(|_| Response::new(500, "overloaded"));
    let error = judge(&server).reply(&prompts(&["one", "two"])).unwrap_err().to_string();
    assert!(
        error.starts_with("the consistency judge failed: no response to any of 2 requests: "),
        "{error}"
    );
    // A refused request is answered: the server is alive.
    let server = Server::chat(|_| Response::new(400, "too long"));
    assert_eq!(judge(&server).reply(&prompts(&["one", "two"])).unwrap(), [None, None]);
}

#[test]
fn a_wait_for_the_judge_ends_when_the_run_stops() {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let server = Server::chat(move |_| {
        stopping.store(true, Ordering::Relaxed);
        Response::hang()
    });
    let client = ClientOptions::new([server.base_url()]);
    let client = ClientOptions { timeout: Duration::from_secs(3600), ..client };
    let judge = HttpJudge::new(HttpJudgeOptions::new(client, "ref")).unwrap();
    let replies = judge.reply_until(&prompts(&["why"]), &stop);
    assert!(matches!(replies, Err(Error::Interrupted)), "{replies:?}");
}
