//! The client against servers that misbehave in every way a real one does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::time::Duration;

use embodied_r_openai::{ApiKey, ChatRequest, Client, ClientOptions, Error, Message};
use server::{Act, Server};

fn options(servers: &[&Server]) -> ClientOptions {
    ClientOptions {
        timeout: Duration::from_secs(20),
        max_retries: 3,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(4),
        ..ClientOptions::new(servers.iter().map(|server| server.base_url()))
    }
}

async fn ask(options: &ClientOptions) -> Result<embodied_r_openai::ChatReply, Error> {
    let request = ChatRequest::new("m", vec![Message::user("hello")]);
    Client::new(options).unwrap().chat(&request).await
}

#[tokio::test]
async fn a_reply_brings_text_usage_and_the_number_of_attempts() {
    let server = Server::start([Act::Say("hi")]).await;
    let reply = ask(&options(&[&server])).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.attempts), ("hi", 1));
    assert_eq!(reply.usage.unwrap().completion_tokens, 2);
}

#[tokio::test]
async fn the_request_goes_to_the_chat_path_with_model_and_key() {
    let server = Server::start([Act::Say("hi")]).await;
    let api_key = ApiKey::new("sk-secret");
    ask(&ClientOptions { api_key, ..options(&[&server]) }).await.unwrap();
    let request = &server.requests()[0];
    assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1"), "{request}");
    assert!(request.to_lowercase().contains("authorization: bearer sk-secret"), "{request}");
    assert!(request.ends_with(r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#));
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent() {
    let server = Server::start([Act::Say("hi")]).await;
    ask(&options(&[&server])).await.unwrap();
    assert!(!server.requests()[0].to_lowercase().contains("authorization"));
}

/// Each fault that may pass is followed by an answer, which must arrive.
#[tokio::test]
async fn faults_that_may_pass_are_outlived() {
    for fault in [
        Act::Status(429, "slow down"),
        Act::Status(500, "out of memory"),
        Act::Status(503, "loading"),
        Act::Body("{\"choices\": [{\"mess"),
        Act::Body("<html>bad gateway</html>"),
        Act::Body("{\"error\": {\"message\": \"worker died\"}}"),
        Act::CutAtOnce,
        Act::CutInBody,
    ] {
        let server = Server::start([fault, Act::Say("hi")]).await;
        let reply = ask(&options(&[&server])).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.attempts), ("hi", 2), "{fault:?}");
    }
}

#[tokio::test]
async fn a_hanging_server_is_left_after_the_timeout() {
    let server = Server::start([Act::Hang, Act::Say("hi")]).await;
    let timeout = Duration::from_millis(400);
    let reply = ask(&ClientOptions { timeout, ..options(&[&server]) }).await.unwrap();
    assert_eq!(reply.attempts, 2);
}

#[tokio::test]
async fn faults_that_will_not_pass_are_not_repeated() {
    for status in [400, 401, 403, 404, 422] {
        let server = Server::start([Act::Status(status, "no"), Act::Say("hi")]).await;
        let error = ask(&options(&[&server])).await.unwrap_err();
        assert!(matches!(error, Error::Status { status: s, .. } if s == status), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn the_last_failure_is_told_after_the_last_retry() {
    let server = Server::start([Act::Status(500, "out of memory"); 4]).await;
    let error = ask(&options(&[&server])).await.unwrap_err();
    assert!(matches!(error, Error::GaveUp { attempts: 4, .. }));
    assert!(error.to_string().ends_with("answered 500: out of memory"), "{error}");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = Server::start([Act::RetryAfter("1"), Act::Say("hi")]).await;
    let reply = ask(&options(&[&server])).await.unwrap();
    assert!(reply.elapsed >= Duration::from_secs(1), "{:?}", reply.elapsed);
}

#[tokio::test]
async fn a_wait_beyond_the_limit_fails_the_request() {
    let server = Server::start([Act::RetryAfter("3600"), Act::Say("hi")]).await;
    let error = ask(&options(&[&server])).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert!(matches!(error, Error::GaveUp { attempts: 1, .. }));
}

#[tokio::test]
async fn another_base_url_answers_while_one_asks_to_wait() {
    let busy = Server::start([Act::RetryAfter("300")]).await;
    let free = Server::start([Act::Say("hi"), Act::Say("again")]).await;
    let client = Client::new(&options(&[&busy, &free])).unwrap();
    let request = ChatRequest::new("m", vec![Message::user("hello")]);
    assert_eq!(client.chat(&request).await.unwrap().text, "hi");
    assert_eq!(client.chat(&request).await.unwrap().text, "again");
    assert_eq!(busy.requests().len(), 1);
}

#[tokio::test]
async fn a_base_url_that_nobody_listens_at_is_failed_over() {
    let gone = Server::start([]).await;
    let gone_url = gone.base_url();
    drop(gone);
    let alive = Server::start([Act::Say("hi")]).await;
    let base_urls = vec![gone_url, alive.base_url()];
    let reply = ask(&ClientOptions { base_urls, ..options(&[]) }).await.unwrap();
    assert_eq!(reply.attempts, 2);
}

#[tokio::test]
async fn requests_take_turns_over_the_base_urls() {
    let servers =
        [Server::start([Act::Say("a"); 2]).await, Server::start([Act::Say("b"); 2]).await];
    let client = Client::new(&options(&[&servers[0], &servers[1]])).unwrap();
    let request = ChatRequest::new("m", vec![Message::user("hello")]);
    let mut said = String::new();
    for _ in 0..4 {
        said += &client.chat(&request).await.unwrap().text;
    }
    assert_eq!(said, "abab");
}

#[tokio::test]
async fn an_error_never_shows_the_key_that_the_server_repeats() {
    let server = Server::start([Act::Status(401, "wrong key: sk-secret")]).await;
    let api_key = ApiKey::new("sk-secret");
    let error = ask(&ClientOptions { api_key, ..options(&[&server]) }).await.unwrap_err();
    assert!(error.to_string().ends_with("answered 401: wrong key: [key]"), "{error}");
}

#[test]
fn a_client_needs_a_base_url() {
    assert!(matches!(Client::new(&options(&[])), Err(Error::NoBaseUrl)));
}
