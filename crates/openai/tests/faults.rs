//! Fault injection: the client against a misbehaving server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use embodied_r_openai::{
    ApiKey, ChatCompletionMessage, ChatCompletionRequest, Client, ClientOptions, CompletionStatus,
    Error, TimeoutKind,
};
use embodied_r_test_server::{Response, Server, script};

/// A chat API with one response per request.
fn serve(responses: impl IntoIterator<Item = Response>) -> Server {
    Server::chat(script(responses))
}

fn completion(text: &str) -> Response {
    let body = format!(
        r#"{{"choices":[{{"message":{{"content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":7,"completion_tokens":2}}}}"#
    );
    Response::new(200, body)
}

fn failure(status: u16, message: &str) -> Response {
    Response::new(status, format!(r#"{{"error":{{"message":"{message}"}}}}"#))
}

fn retry_after(wait: &str) -> Response {
    failure(429, "slow down").header("retry-after", wait)
}

fn options(servers: &[&Server]) -> ClientOptions {
    ClientOptions {
        timeout: Duration::from_secs(20),
        max_retries: 3,
        initial_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(4),
        ..ClientOptions::new(servers.iter().map(|server| server.base_url()))
    }
}

async fn complete(options: &ClientOptions) -> Result<embodied_r_openai::ChatCompletion, Error> {
    let request = ChatCompletionRequest::new("m", vec![ChatCompletionMessage::user("hello")]);
    Client::new(options).unwrap().chat(&request).await
}

#[tokio::test]
async fn a_completion_has_text_usage_and_the_number_of_attempts() {
    let server = serve([completion("hi")]);
    let completion = complete(&options(&[&server])).await.unwrap();
    assert_eq!((completion.text.as_str(), completion.attempts), ("hi", 1));
    assert_eq!(completion.usage.unwrap().completion_tokens, 2);
}

#[tokio::test]
async fn the_request_goes_to_chat_completions_with_model_and_key() {
    let server = serve([completion("hi")]);
    let api_key = ApiKey::new("sk-secret");
    complete(&ClientOptions { api_key, ..options(&[&server]) }).await.unwrap();
    let request = &server.requests()[0];
    assert_eq!((&request.method[..], &request.path[..]), ("POST", "/v1/chat/completions"));
    assert_eq!(request.header("authorization"), Some("Bearer sk-secret"));
    assert_eq!(
        str::from_utf8(&request.body).unwrap(),
        r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#
    );
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent() {
    let server = serve([completion("hi")]);
    complete(&options(&[&server])).await.unwrap();
    assert_eq!(server.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn transient_faults_are_retried() {
    for fault in [
        failure(429, "slow down"),
        failure(500, "out of memory"),
        failure(503, "loading"),
        Response::new(200, "{\"choices\": [{\"mess"),
        Response::new(200, "<html>bad gateway</html>"),
        Response::new(200, "{\"error\": {\"message\": \"worker died\"}}"),
        Response::disconnect(),
        completion("hi").cut_at(90),
    ] {
        let server = serve([fault.clone(), completion("hi")]);
        let completion = complete(&options(&[&server])).await.unwrap();
        assert_eq!((completion.text.as_str(), completion.attempts), ("hi", 2), "{fault:?}");
    }
}

#[tokio::test]
async fn an_endless_response_is_given_up_at_the_size_limit() {
    for status in [200, 500] {
        let server = serve([Response::endless(status), completion("hi")]);
        let completion = complete(&options(&[&server])).await.unwrap();
        assert_eq!((completion.text.as_str(), completion.attempts), ("hi", 2), "{status}");
        // Some more are in the buffers of the sockets.
        assert!(server.sent_bytes() < 100 << 20, "{status}: {} bytes", server.sent_bytes());
    }
}

#[tokio::test]
async fn a_response_above_the_size_limit_is_an_error_with_the_limit() {
    let server = serve([Response::endless(200)]);
    let options =
        ClientOptions { max_retries: 0, max_response_bytes: 3 << 20, ..options(&[&server]) };
    let error = complete(&options).await.unwrap_err().to_string();
    assert!(error.ends_with("sent a response of more than 3 MiB"), "{error}");
    let server = serve([completion("hi")]);
    let exact = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#;
    let base_urls = vec![server.base_url()];
    complete(&ClientOptions { base_urls, max_response_bytes: exact.len(), ..options })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_hanging_server_is_retried_after_the_timeout() {
    let server = serve([Response::hang(), completion("hi")]);
    let timeout = Duration::from_millis(400);
    let completion = complete(&ClientOptions { timeout, ..options(&[&server]) }).await.unwrap();
    assert_eq!(completion.attempts, 2);
}

#[tokio::test]
async fn each_timeout_reports_its_kind() {
    let short = Duration::from_millis(300);
    let fails = async |response, options: ClientOptions| {
        let server = serve([response]);
        let base_urls = vec![server.base_url()];
        let error = complete(&ClientOptions { base_urls, max_retries: 0, ..options }).await;
        match error.unwrap_err() {
            Error::RetriesExhausted { last, .. } => match *last {
                Error::Timeout { kind, .. } => kind,
                other => panic!("{other}"),
            },
            other => panic!("{other}"),
        }
    };
    let options = options(&[]);
    let first_byte = ClientOptions { first_byte_timeout: short, ..options.clone() };
    assert_eq!(fails(Response::hang(), first_byte).await, TimeoutKind::FirstByte);
    let total = ClientOptions { timeout: short, ..options };
    assert_eq!(fails(completion("hi").hang_at(90), total.clone()).await, TimeoutKind::Total);
    assert_eq!(fails(Response::hang(), total).await, TimeoutKind::Total);
}

/// The listener's backlog is full, so that the kernel lets further connections wait.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_client_fails_over_after_the_connect_timeout() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || {
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address))
    };
    let mut open = Vec::new();
    while let Ok(stream) = connect().await {
        open.push(stream.unwrap());
    }
    let alive = serve([completion("hi")]);
    let base_urls = vec![format!("http://{address}/v1"), alive.base_url()];
    let connect_timeout = Duration::from_millis(300);
    let completion =
        complete(&ClientOptions { base_urls, connect_timeout, ..options(&[]) }).await.unwrap();
    assert_eq!(completion.attempts, 2);
}

#[tokio::test]
async fn a_refusal_is_distinguished_from_an_error_and_not_retried() {
    let filtered = r#"{"error":{"code":"content_policy_violation","message":"not this image"}}"#;
    let server = serve([Response::new(400, filtered)]);
    let error = complete(&options(&[&server])).await.unwrap_err();
    assert!(matches!(error, Error::ContentFiltered { .. }), "{error}");
    assert!(error.to_string().ends_with("rejected the request: not this image"), "{error}");
    assert!(!error.is_retryable() && !error.fails_every_request());

    let refusal = r#"{"choices":[{"message":{"content":null,"refusal":"I will not."}}]}"#;
    let server = serve([Response::new(200, refusal)]);
    let completion = complete(&options(&[&server])).await.unwrap();
    assert_eq!((completion.status(), completion.attempts), (CompletionStatus::Refused, 1));
}

#[tokio::test]
async fn a_truncated_completion_is_a_result() {
    let server = serve([Response::new(
        200,
        r#"{"choices":[{"message":{"content":"a lam"},"finish_reason":"length"}]}"#,
    )]);
    let completion = complete(&options(&[&server])).await.unwrap();
    assert_eq!(
        (completion.text.as_str(), completion.status()),
        ("a lam", CompletionStatus::Truncated)
    );
}

#[tokio::test]
async fn an_exhausted_quota_is_not_retried() {
    let exhausted = r#"{"error":{"code":"insufficient_quota","message":"check your plan"}}"#;
    let server = serve([Response::new(429, exhausted)]);
    let error = complete(&options(&[&server])).await.unwrap_err();
    assert!(
        matches!(error, Error::InsufficientQuota { .. }) && error.fails_every_request(),
        "{error}"
    );
}

#[tokio::test]
async fn rate_limiting_does_not_use_up_the_retries() {
    let server = serve([retry_after("0"), failure(429, "later"), completion("hi")]);
    let completion =
        complete(&ClientOptions { max_retries: 0, ..options(&[&server]) }).await.unwrap();
    assert_eq!(completion.attempts, 3);
}

#[tokio::test]
async fn endless_rate_limiting_fails_the_request() {
    let server = serve(vec![failure(429, "later"); 2]);
    let max_retry_after = Duration::ZERO;
    let options = ClientOptions { max_retries: 1, max_retry_after, ..options(&[&server]) };
    assert!(matches!(
        complete(&options).await.unwrap_err(),
        Error::RetriesExhausted { attempts: 2, .. }
    ));
}

#[tokio::test]
async fn a_dead_base_url_costs_three_attempts_and_no_more() {
    let gone = serve([]).base_url();
    let alive = serve(vec![completion("hi"); 20]);
    let initial_backoff = Duration::from_secs(60);
    let base_urls = vec![gone, alive.base_url()];
    let options =
        ClientOptions { base_urls, initial_backoff, max_backoff: initial_backoff, ..options(&[]) };
    let client = Client::new(&options).unwrap();
    let request = ChatCompletionRequest::new("m", vec![ChatCompletionMessage::user("hello")]);
    let mut attempts = 0;
    for _ in 0..20 {
        attempts += client.chat(&request).await.unwrap().attempts;
    }
    assert_eq!(attempts, 23);
}

#[tokio::test]
async fn a_base_url_without_the_model_is_disabled() {
    let wrong = serve([failure(404, "no such model")]);
    let right = serve(vec![completion("hi"); 4]);
    let client = Client::new(&options(&[&wrong, &right])).unwrap();
    let request = ChatCompletionRequest::new("m", vec![ChatCompletionMessage::user("hello")]);
    for _ in 0..4 {
        client.chat(&request).await.unwrap();
    }
    assert_eq!(wrong.requests().len(), 1);
}

#[tokio::test]
async fn permanent_errors_are_not_retried() {
    for status in [400, 401, 403, 404, 422] {
        let server = serve([failure(status, "no"), completion("hi")]);
        let error = complete(&options(&[&server])).await.unwrap_err();
        assert!(matches!(error, Error::Status { status: s, .. } if s == status), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn the_last_failure_is_reported_after_the_last_retry() {
    let server = serve(vec![failure(500, "out of memory"); 4]);
    let error = complete(&options(&[&server])).await.unwrap_err();
    assert!(matches!(error, Error::RetriesExhausted { attempts: 4, .. }));
    assert!(error.to_string().ends_with("returned 500: out of memory"), "{error}");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn retry_after_delays_the_retry() {
    let server = serve([retry_after("1"), completion("hi")]);
    let completion = complete(&options(&[&server])).await.unwrap();
    assert!(completion.elapsed >= Duration::from_secs(1), "{:?}", completion.elapsed);
}

#[tokio::test]
async fn a_retry_after_beyond_the_limit_fails_the_request() {
    let server = serve([retry_after("3600"), completion("hi")]);
    let error = complete(&options(&[&server])).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert!(matches!(error, Error::RetriesExhausted { attempts: 1, .. }));
}

#[tokio::test]
async fn requests_fail_over_during_retry_after() {
    let busy = serve([retry_after("300")]);
    let free = serve([completion("hi"), completion("again")]);
    let client = Client::new(&options(&[&busy, &free])).unwrap();
    let request = ChatCompletionRequest::new("m", vec![ChatCompletionMessage::user("hello")]);
    assert_eq!(client.chat(&request).await.unwrap().text, "hi");
    assert_eq!(client.chat(&request).await.unwrap().text, "again");
    assert_eq!(busy.requests().len(), 1);
}

#[tokio::test]
async fn requests_fail_over_when_the_connection_is_refused() {
    let gone = serve([]);
    let gone_url = gone.base_url();
    drop(gone);
    let alive = serve([completion("hi")]);
    let base_urls = vec![gone_url, alive.base_url()];
    let completion = complete(&ClientOptions { base_urls, ..options(&[]) }).await.unwrap();
    assert_eq!(completion.attempts, 2);
}

#[tokio::test]
async fn requests_alternate_between_base_urls() {
    let servers = [serve(vec![completion("a"); 2]), serve(vec![completion("b"); 2])];
    let client = Client::new(&options(&[&servers[0], &servers[1]])).unwrap();
    let request = ChatCompletionRequest::new("m", vec![ChatCompletionMessage::user("hello")]);
    let mut text = String::new();
    for _ in 0..4 {
        text += &client.chat(&request).await.unwrap().text;
    }
    assert_eq!(text, "abab");
}

#[tokio::test]
async fn a_key_repeated_by_the_server_is_redacted() {
    let server = serve([failure(401, "wrong key: sk-secret")]);
    let api_key = ApiKey::new("sk-secret");
    let error = complete(&ClientOptions { api_key, ..options(&[&server]) }).await.unwrap_err();
    assert!(error.to_string().ends_with("returned 401: wrong key: [key]"), "{error}");
}

#[test]
fn a_client_needs_a_base_url() {
    assert!(matches!(Client::new(&options(&[])), Err(Error::NoBaseUrl)));
}
