//! A server that follows a script, one act a request.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What to do with one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// Answer with this text.
    Say(&'static str),
    /// Refuse with this status and message.
    Status(u16, &'static str),
    /// Refuse with 429 and this `Retry-After`.
    RetryAfter(&'static str),
    /// Refuse with this status and body.
    Code(u16, &'static str),
    /// Report success with this body.
    Body(&'static str),
    /// Close the connection without a word.
    CutAtOnce,
    /// Close the connection in the middle of a good reply.
    CutInBody,
    /// Say nothing and keep the connection.
    Hang,
    /// Say half of a good reply and keep the connection.
    HangInBody,
    /// Answer with this text, cut off at the limit of tokens.
    CutShort(&'static str),
}

/// The server; it stops when it is dropped.
pub(crate) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let mut script = script.into_iter().collect::<Vec<_>>().into_iter();
        let task = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = read_request(&mut stream).await else { continue };
                seen.lock().unwrap().push(request);
                let act = script.next().expect("the script has an act for every request");
                // Whoever asked may have left meanwhile.
                let _ = stream.write_all(reply(act).as_bytes()).await;
                if matches!(act, Act::Hang | Act::HangInBody) {
                    kept.push(stream);
                }
            }
        });
        Self { port, requests, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The requests so far, heads and bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The bytes of a reply.
fn reply(act: Act) -> String {
    let http = |status: u16, more: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}"
        )
    };
    let refusal = |message: &str| format!(r#"{{"error":{{"message":"{message}"}}}}"#);
    let said = |text: &str| {
        format!(
            r#"{{"choices":[{{"message":{{"content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":7,"completion_tokens":2}}}}"#
        )
    };
    let half = || {
        let whole = http(200, "", &said("hi"));
        whole[..whole.len() - 20].to_owned()
    };
    match act {
        Act::Say(text) => http(200, "", &said(text)),
        Act::CutShort(text) => http(200, "", &said(text).replace("\"stop\"", "\"length\"")),
        Act::Status(status, message) => http(status, "", &refusal(message)),
        Act::RetryAfter(wait) => {
            http(429, &format!("retry-after: {wait}\r\n"), &refusal("slow down"))
        }
        Act::Code(status, body) => http(status, "", body),
        Act::Body(body) => http(200, "", body),
        Act::CutInBody | Act::HangInBody => half(),
        Act::CutAtOnce | Act::Hang => String::new(),
    }
}

/// A request's head and body, by its `content-length`.
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
