//! The client against servers that misbehave in every way a real one does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::time::Duration;

use embodied_r_openai::{
    ApiKey, ChatRequest, Client, ClientOptions, Deadline, Ending, Error, Message,
};
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
async fn each_deadline_is_told_by_its_name() {
    let short = Duration::from_millis(300);
    let fails = async |act, options: ClientOptions| {
        let server = Server::start([act]).await;
        let base_urls = vec![server.base_url()];
        let error = ask(&ClientOptions { base_urls, max_retries: 0, ..options }).await;
        match error.unwrap_err() {
            Error::GaveUp { last, .. } => match *last {
                Error::Timeout { deadline, .. } => deadline,
                other => panic!("{other}"),
            },
            other => panic!("{other}"),
        }
    };
    let options = options(&[]);
    let first_byte = ClientOptions { first_byte_timeout: short, ..options.clone() };
    assert_eq!(fails(Act::Hang, first_byte).await, Deadline::FirstByte);
    let whole = ClientOptions { timeout: short, ..options };
    assert_eq!(fails(Act::HangInBody, whole.clone()).await, Deadline::Whole);
    assert_eq!(fails(Act::Hang, whole).await, Deadline::Whole);
}

/// A listener whose queue is full, so that the kernel lets further connections wait.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_that_cannot_be_connected_to_is_left_after_the_deadline() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || {
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address))
    };
    let mut kept = Vec::new();
    while let Ok(stream) = connect().await {
        kept.push(stream.unwrap());
    }
    let alive = Server::start([Act::Say("hi")]).await;
    let base_urls = vec![format!("http://{address}/v1"), alive.base_url()];
    let connect_timeout = Duration::from_millis(300);
    let reply = ask(&ClientOptions { base_urls, connect_timeout, ..options(&[]) }).await.unwrap();
    assert_eq!(reply.attempts, 2);
}

#[tokio::test]
async fn a_refusal_is_told_from_an_error_and_not_sent_again() {
    let filtered = r#"{"error":{"code":"content_policy_violation","message":"not this picture"}}"#;
    let server = Server::start([Act::Code(400, filtered)]).await;
    let error = ask(&options(&[&server])).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(error.to_string().ends_with("refuses the content: not this picture"), "{error}");
    assert!(!error.is_retryable() && !error.refuses_everyone());

    let words = r#"{"choices":[{"message":{"content":null,"refusal":"I will not."}}]}"#;
    let server = Server::start([Act::Body(words)]).await;
    let reply = ask(&options(&[&server])).await.unwrap();
    assert_eq!((reply.ending(), reply.attempts), (Ending::Refused, 1));
}

#[tokio::test]
async fn a_reply_that_was_cut_off_is_a_reply() {
    let server = Server::start([Act::CutShort("a lam")]).await;
    let reply = ask(&options(&[&server])).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.ending()), ("a lam", Ending::Truncated));
}

#[tokio::test]
async fn a_spent_account_is_not_asked_again() {
    let spent = r#"{"error":{"code":"insufficient_quota","message":"check your plan"}}"#;
    let server = Server::start([Act::Code(429, spent)]).await;
    let error = ask(&options(&[&server])).await.unwrap_err();
    assert!(matches!(error, Error::OutOfQuota { .. }) && error.refuses_everyone(), "{error}");
}

#[tokio::test]
async fn being_told_to_wait_does_not_use_up_the_retries() {
    let server =
        Server::start([Act::RetryAfter("0"), Act::Status(429, "later"), Act::Say("hi")]).await;
    let reply = ask(&ClientOptions { max_retries: 0, ..options(&[&server]) }).await.unwrap();
    assert_eq!(reply.attempts, 3);
}

#[tokio::test]
async fn being_told_to_wait_for_ever_fails_the_request() {
    let server = Server::start([Act::Status(429, "later"); 2]).await;
    let longest_retry_after = Duration::ZERO;
    let options = ClientOptions { max_retries: 1, longest_retry_after, ..options(&[&server]) };
    assert!(matches!(ask(&options).await.unwrap_err(), Error::GaveUp { attempts: 2, .. }));
}

#[tokio::test]
async fn a_dead_base_url_costs_three_attempts_and_no_more() {
    let gone = Server::start([]).await.base_url();
    let alive = Server::start([Act::Say("hi"); 20]).await;
    let first_wait = Duration::from_secs(60);
    let base_urls = vec![gone, alive.base_url()];
    let options = ClientOptions { base_urls, first_wait, longest_wait: first_wait, ..options(&[]) };
    let client = Client::new(&options).unwrap();
    let request = ChatRequest::new("m", vec![Message::user("hello")]);
    let mut attempts = 0;
    for _ in 0..20 {
        attempts += client.chat(&request).await.unwrap().attempts;
    }
    assert_eq!(attempts, 23);
}

#[tokio::test]
async fn a_base_url_that_knows_no_such_model_is_left_to_the_others() {
    let wrong = Server::start([Act::Status(404, "no such model")]).await;
    let right = Server::start([Act::Say("hi"); 4]).await;
    let client = Client::new(&options(&[&wrong, &right])).unwrap();
    let request = ChatRequest::new("m", vec![Message::user("hello")]);
    for _ in 0..4 {
        client.chat(&request).await.unwrap();
    }
    assert_eq!(wrong.requests().len(), 1);
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
