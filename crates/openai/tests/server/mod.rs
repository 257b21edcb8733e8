//! A mock server that follows a script, one response per request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How to respond to one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MockResponse {
    /// A completion with this text.
    Completion(&'static str),
    /// An error with this status and message.
    Status(u16, &'static str),
    /// 429 with this `Retry-After`.
    RetryAfter(&'static str),
    /// An error with this status and body.
    ErrorBody(u16, &'static str),
    /// 200 with this body.
    Body(&'static str),
    /// Close the connection without a response.
    Disconnect,
    /// Close the connection in the middle of a good response.
    DisconnectInBody,
    /// Send nothing and keep the connection open.
    Hang,
    /// Send half of a good response and keep the connection open.
    HangInBody,
    /// A body of 512 MiB, of this status, until the client closes the connection.
    Endless(u16),
    /// A completion truncated at the token limit.
    Truncated(&'static str),
}

/// The server; stops on drop.
pub(crate) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    /// Bytes of [`MockResponse::Endless`].
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(script: impl IntoIterator<Item = MockResponse>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&requests);
        let sent = Arc::new(AtomicU64::new(0));
        let total = Arc::clone(&sent);
        let mut script = script.into_iter().collect::<Vec<_>>().into_iter();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = read_request(&mut stream).await else { continue };
                received.lock().unwrap().push(request);
                let response = script.next().expect("the script has a response for every request");
                // The client may have disconnected meanwhile.
                let _ = stream.write_all(response_bytes(response).as_bytes()).await;
                if matches!(response, MockResponse::Endless(_)) {
                    let chunk = [b' '; 1 << 16];
                    let mut chunks = 0..8192;
                    while chunks.next().is_some() && stream.write_all(&chunk).await.is_ok() {
                        sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
                    }
                }
                if matches!(response, MockResponse::Hang | MockResponse::HangInBody) {
                    open.push(stream);
                }
            }
        });
        Self { port, requests, sent: total, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The bytes of endless bodies that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// The requests so far, headers and bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The bytes of a response.
fn response_bytes(response: MockResponse) -> String {
    let http = |status: u16, more: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}"
        )
    };
    let error = |message: &str| format!(r#"{{"error":{{"message":"{message}"}}}}"#);
    let completion = |text: &str| {
        format!(
            r#"{{"choices":[{{"message":{{"content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":7,"completion_tokens":2}}}}"#
        )
    };
    let half = || {
        let whole = http(200, "", &completion("hi"));
        whole[..whole.len() - 20].to_owned()
    };
    match response {
        MockResponse::Completion(text) => http(200, "", &completion(text)),
        MockResponse::Truncated(text) => {
            http(200, "", &completion(text).replace("\"stop\"", "\"length\""))
        }
        MockResponse::Status(status, message) => http(status, "", &error(message)),
        MockResponse::RetryAfter(wait) => {
            http(429, &format!("retry-after: {wait}\r\n"), &error("slow down"))
        }
        MockResponse::ErrorBody(status, body) => http(status, "", body),
        MockResponse::Body(body) => http(200, "", body),
        MockResponse::DisconnectInBody | MockResponse::HangInBody => half(),
        MockResponse::Disconnect | MockResponse::Hang => String::new(),
        MockResponse::Endless(status) => {
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\n\r\n")
        }
    }
}

/// A request's headers and body, by its `content-length`.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await.ok()?;
        if n == 0 {
            return None;
        }
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse::<usize>().ok())
            .unwrap_or(0);
        if body.len() >= length {
            return Some(text);
        }
    }
}
