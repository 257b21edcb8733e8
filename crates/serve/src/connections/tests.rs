use std::io::Error;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::*;
use crate::body::{BodyLimits, receive};

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The time within which a client must get a connection of one that is too slow.
const SOON: Duration = Duration::from_secs(10);

/// A server whose responses are the sizes of the bodies.
struct Server {
    address: SocketAddr,
    memory: Arc<Budget>,
    _close: watch::Sender<bool>,
}

impl Server {
    async fn start(limit_concurrency: usize, memory: u64) -> Self {
        let memory = Arc::new(Budget::of_clients(memory, 1));
        let router = Router::new()
            .route("/health", get(|| async { "ok" }))
            .route("/size", post(size))
            .route("/slow", post(slow))
            .with_state(memory.clone());
        let limits = HttpLimits {
            limit_concurrency,
            timeout_header: TIMEOUT,
            timeout_body: TIMEOUT,
            timeout_send: TIMEOUT,
            timeout_keep_alive: TIMEOUT,
            request_memory_bytes: 0,
            max_prompt_pixels: 0,
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (close, closing) = watch::channel(false);
        tokio::spawn(serve(listener, router, limits, metrics, closing));
        Self { address, memory, _close: close }
    }

    /// A connection from 127.0.0.`last` with these bytes sent.
    async fn sent_from(&self, last: u8, bytes: &[u8]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from([127, 0, 0, last]), 0).into()).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn sent(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        self.sent_from(1, bytes.as_ref()).await
    }

    async fn answer(&self, request: impl AsRef<[u8]>) -> String {
        let stream = self.sent(request).await;
        timeout(SOON, rest(stream)).await.unwrap()
    }
}

async fn size(State(memory): State<Arc<Budget>>, request: Request) -> Response {
    let limits = BodyLimits { max_bytes: 1 << 30, timeout: TIMEOUT, memory: &memory };
    match receive(request, limits).await {
        Ok(received) => received.bytes.len().to_string().into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Responds when any body would be slow.
async fn slow(memory: State<Arc<Budget>>, request: Request) -> Response {
    let response = size(memory, request).await;
    sleep(Duration::from_secs(3)).await;
    response
}

/// What the server sends until it closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

/// The code in an error response with this status.
fn code(response: &str, status: u16) -> String {
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let error: Value = serde_json::from_str(body).unwrap();
    error["error"]["code"].as_str().unwrap().to_owned()
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";

const COMPLETE: &str =
    "POST /size HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";

const NO_BODY_YET: &str = "POST /size HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n";

/// Requests whose bodies are not complete.
fn half_sent() -> Vec<String> {
    let chunked = "POST /size HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        NO_BODY_YET.into(),
        format!("{NO_BODY_YET}{{\"model\""),
        format!("{NO_BODY_YET}{}", "x".repeat(999_999)),
        chunked.into(),
        format!("{chunked}3\r\nab"),
        format!("{chunked}3\r\nabc\r\n"),
        // On a connection that has had a complete request.
        format!("GET /health HTTP/1.1\r\nHost: here\r\n\r\n{NO_BODY_YET}a"),
        NO_BODY_YET.replace("Host", "Expect: 100-continue\r\nHost"),
    ]
}

#[tokio::test]
async fn half_sent_bodies_leave_room_for_other_clients() {
    let server = Server::start(8, 1 << 30).await;
    let mut stalled = vec![];
    for request in half_sent() {
        stalled.push(server.sent(request).await);
    }
    assert!(server.answer(HEALTH).await.ends_with("\r\n\r\nok"));
    assert!(server.answer(COMPLETE).await.ends_with("\r\n\r\n3"));
    drop(stalled);
}

#[tokio::test]
async fn each_kind_of_half_sent_body_makes_room_and_gets_408() {
    for request in half_sent() {
        let server = Server::start(1, 1 << 30).await;
        let stalled = server.sent(&request).await;
        // Until its header is read, it would make room without a response.
        sleep(Duration::from_millis(200)).await;
        assert!(server.answer(HEALTH).await.ends_with("\r\n\r\nok"), "{request:.200}");
        let mut response = rest(stalled).await;
        // The responses before it.
        let last = response.rfind("HTTP/1.1 ").unwrap();
        assert_eq!(code(&response.split_off(last), 408), "request_timeout", "{request:.200}");
    }
}

#[tokio::test]
async fn trickling_bodies_leave_room_for_other_clients() {
    let server = Server::start(4, 1 << 30).await;
    let mut trickling = vec![];
    for _ in 0..4 {
        let mut stream = server.sent(NO_BODY_YET).await;
        trickling.push(tokio::spawn(async move {
            while stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(200)).await;
            }
        }));
    }
    sleep(Duration::from_secs(2)).await;
    assert!(server.answer(HEALTH).await.ends_with("\r\n\r\nok"));
    assert!(server.answer(COMPLETE).await.ends_with("\r\n\r\n3"));
    for task in trickling {
        task.abort();
    }
}

#[tokio::test]
async fn a_complete_request_keeps_its_connection_until_its_response_is_sent() {
    let server = Server::start(1, 1 << 30).await;
    let complete = server.sent(COMPLETE.replace("/size", "/slow")).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(code(&server.answer(HEALTH).await, 503), "too_many_connections");
    assert!(rest(complete).await.ends_with("\r\n\r\n3"));
}

#[tokio::test]
async fn a_slow_but_steady_body_is_received_to_its_end_while_others_want_its_connection() {
    let server = Server::start(2, 1 << 30).await;
    let mut steady = server.sent(NO_BODY_YET.replace("Host", "Connection: close\r\nHost")).await;
    let _stalled = server.sent(NO_BODY_YET).await;
    let rest_of_steady = async {
        let (part, mut left) = ([b'x'; 50_000], 1_000_000);
        while left > 0 {
            steady.write_all(&part).await.unwrap();
            left -= part.len();
            sleep(Duration::from_millis(250)).await;
        }
        rest(steady).await
    };
    let others = async {
        // The first makes the stalled one give way.
        for _ in 0..20 {
            let _ = server.answer(HEALTH).await;
            let _waiting = server.sent(COMPLETE).await;
            let _also_waiting = server.sent(NO_BODY_YET).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let (response, ()) = tokio::join!(rest_of_steady, others);
    assert!(response.ends_with("\r\n\r\n1000000"), "{response}");
}

#[tokio::test]
async fn a_body_that_another_client_needs_the_memory_of_gets_503() {
    let server = Server::start(8, 1 << 20).await;
    // More than half, in bodies that are not slow.
    let mut greedy = vec![];
    for _ in 0..2 {
        let part = [NO_BODY_YET.as_bytes(), &[b'x'; 450_000]].concat();
        greedy.push(server.sent_from(2, &part).await);
    }
    while server.memory.is_within_share(Client::from(IpAddr::from([127, 0, 0, 2])), 0) {
        sleep(Duration::from_millis(5)).await;
    }
    let request = [
        b"POST /size HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: 400000\r\n\r\n",
        &[b'x'; 400_000][..],
    ]
    .concat();
    assert!(server.answer(&request).await.ends_with("\r\n\r\n400000"));
    let mut refused = 0;
    for stream in greedy {
        if let Ok(response) = timeout(Duration::from_secs(2), rest(stream)).await {
            assert_eq!(code(&response, 503), "overloaded");
            assert!(response.contains("\r\nretry-after: 1\r\n"), "{response}");
            refused += 1;
        }
    }
    assert_eq!(refused, 1);
}

#[test]
fn only_a_lack_of_resources_costs_another_client_its_connection() {
    let error = |code: Errno| Error::from_raw_os_error(code.raw_os_error());
    for code in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        assert!(is_out_of_resources(&error(code)) && !is_of_client(&error(code)), "{code}");
    }
    for code in [Errno::PERM, Errno::PROTO, Errno::NETDOWN, Errno::CONNABORTED] {
        assert!(!is_out_of_resources(&error(code)), "{code}");
    }
    assert!(is_of_client(&error(Errno::CONNABORTED)) && !is_of_client(&error(Errno::PERM)));
}
