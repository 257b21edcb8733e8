//! Clients that are too slow, too many, or gone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Connection, Server, chat, completion};
use super::{CHAT, COMPLETIONS, long, refused};

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection with these bytes sent.
fn sent(server: &Server, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream
}

/// What the server sends until it closes the connection.
fn rest(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The response to a connection that the server closes, if it sends one.
fn answer(mut stream: &TcpStream) -> Option<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

const HALF_A_HEADER: &str = "POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-";

#[test]
fn half_sent_headers_leave_room_for_other_clients() {
    // Without a limit of connections, these would use up the file descriptors.
    let server = Server::with_file_limit(200, &["--timeout-header", "3600"]);
    let waiting: Vec<TcpStream> = (0..300).map(|_| sent(&server, HALF_A_HEADER)).collect();
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.post(CHAT, &chat("a lamp", json!({"max_tokens": 2}))).status, 200);
    // Those that waited for longest have made room; the server answers the ones whose first bytes it has read.
    let first = waiting.iter().find_map(answer).unwrap();
    assert!(
        first.starts_with("HTTP/1.1 503 ") && first.contains("too_many_connections"),
        "{first}"
    );
}

#[test]
fn connections_that_make_room_do_not_wait_for_their_clients_beyond_a_limit() {
    let server = Server::start(&["--timeout-header", "3600", "--limit-concurrency", "200"]);
    let begun = || -> Vec<TcpStream> { (0..200).map(|_| sent(&server, HALF_A_HEADER)).collect() };
    let waiting = begun();
    // Those whose first bytes are not read yet get no response.
    std::thread::sleep(Duration::from_millis(500));
    let _others = begun();
    let is_answered =
        |stream: &TcpStream| answer(stream).is_some_and(|text| text.starts_with("HTTP/1.1 503 "));
    // 64 are answered at a time, for up to a second each.
    let answered = waiting.iter().filter(|stream| is_answered(stream)).count();
    assert!((1..=180).contains(&answered), "{answered}");
    assert!(server.metric("requests_total{outcome=\"overloaded\"}") >= answered as f64);
}

#[test]
fn a_header_that_takes_too_long_gets_408() {
    let server = Server::start(&["--timeout-header", "1"]);
    let stream = sent(&server, HALF_A_HEADER);
    let response = rest(&stream);
    assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let error: Value = serde_json::from_str(body).unwrap();
    assert_eq!(error["error"]["message"], "the header of the request took longer than 1 s");
    // A client that has sent nothing has no request to be refused.
    assert_eq!(rest(&sent(&server, "")), "");
    assert_eq!(server.metric("requests_total{outcome=\"refused\"}"), 1.0);
}

#[test]
fn a_header_whose_bytes_arrive_one_by_one_is_no_exception() {
    let server = Server::start(&["--timeout-header", "1"]);
    let mut stream = sent(&server, "GET /health HTTP/1.1\r\nX: ");
    let began = Instant::now();
    while stream.write_all(b"x").is_ok() {
        assert!(began.elapsed() < TIMEOUT, "the header may take forever");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_body_that_takes_too_long_gets_408() {
    let server = Server::start(&["--timeout-body", "1"]);
    let head =
        "POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{\"model\"";
    let response = rest(&sent(&server, head));
    assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
    assert!(response.contains("the body of the request took longer than 1 s"), "{response}");
    assert_eq!(server.metric("requests_total{outcome=\"refused\"}"), 1.0);
}

#[test]
fn half_sent_bodies_leave_room_for_other_clients() {
    let server = Server::start(&["--timeout-body", "3600", "--limit-concurrency", "8"]);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{\"model\"";
    let waiting: Vec<TcpStream> = (0..8).map(|_| sent(&server, head)).collect();
    // Those whose headers are not read yet would make room as connections without a request.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/metrics").status, 200);
    assert_eq!(server.post(CHAT, &chat("a lamp", json!({"max_tokens": 2}))).status, 200);
    let evicted = waiting.iter().find_map(|stream| {
        // The others get nothing.
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        answer(stream)
    });
    let evicted = evicted.unwrap();
    assert!(
        evicted.starts_with("HTTP/1.1 408 ") && evicted.contains("request_timeout"),
        "{evicted}"
    );
}

#[test]
fn an_idle_connection_is_closed() {
    let server = Server::start(&["--timeout-keep-alive", "1"]);
    let stream = sent(&server, "GET /health HTTP/1.1\r\nHost: here\r\n\r\n");
    let response = rest(&stream);
    assert!(response.ends_with("{\"status\":\"ok\"}"), "{response}");
}

#[test]
fn a_connection_is_refused_while_all_have_requests_in_progress() {
    let server = Server::start(&["--limit-concurrency", "1"]);
    let mut running = server.open("POST", COMPLETIONS, &long(json!({"n": 8})).to_string());
    running.first_event();
    let answer = server.get("/health");
    refused(&answer, 503, Value::Null, "too_many_connections");
    assert!(answer.headers.contains("retry-after: 1"), "{answer:?}");
    drop(running);
    let began = Instant::now();
    while server.get("/health").status != 200 {
        assert!(began.elapsed() < TIMEOUT, "the closed connection still counts");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(server.metric("requests_total{outcome=\"overloaded\"}") >= 1.0);
}

#[test]
fn health_and_metrics_are_answered_while_all_sequences_are_in_use() {
    let server = Server::start(&["--max-num-seqs", "2", "--max-queue", "2"]);
    let _streams: Vec<_> =
        (0..4).map(|_| server.open("POST", COMPLETIONS, &long(json!({})).to_string())).collect();
    // In this order: two sequences also wait before the first of them runs.
    server.wait_for("sequences_running", 2.0);
    server.wait_for("sequences_waiting", 2.0);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.metric("sequences_running"), 2.0);
}

#[test]
fn bodies_beyond_the_memory_for_requests_get_503() {
    let server = Server::start(&["--request-memory-gb", "0.14"]);
    let begun = "x".repeat(15 << 20);
    let begin = || {
        let length = 16 << 20;
        let head =
            format!("POST {CHAT} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = sent(&server, &head);
        // The server may refuse it before all is sent.
        let _ = stream.write_all(begun.as_bytes());
        stream
    };
    let streams: Vec<TcpStream> = (0..8).map(|_| begin()).collect();
    // Bytes that a connection has buffered are not received yet.
    server.wait_for("request_memory_bytes", 8.0 * begun.len() as f64);
    let last = rest(&begin());
    assert!(last.starts_with("HTTP/1.1 503 ") && last.contains("memory for requests"), "{last}");
    assert_eq!(server.metric("requests_total{outcome=\"overloaded\"}"), 1.0);
    drop(streams);
    let began = Instant::now();
    let small = chat("a lamp", json!({"max_tokens": 2}));
    while server.post(CHAT, &small).status != 200 {
        assert!(began.elapsed() < TIMEOUT, "the memory is not returned");
    }
}

#[test]
fn a_client_that_sends_too_much_reads_why() {
    let server = Server::start(&[]);
    let body = vec![b'x'; 17 << 20];
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = sent(&server, &head);
    stream.write_all(&body).unwrap();
    let response = rest(&stream);
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
}

/// A stream with large events, more of them than a connection buffers.
fn wide(fields: Value) -> Value {
    let mut body = long(json!({"logprobs": 20, "seed": 1}));
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[test]
fn a_client_that_reads_nothing_is_disconnected() {
    let server = Server::start(&["--timeout-send", "1"]);
    let stream = server.open("POST", COMPLETIONS, &wide(json!({})).to_string());
    server.wait_for("requests_total{outcome=\"cancelled\"}", 1.0);
    server.wait_for("sequences_running", 0.0);
    drop(stream);
}

#[test]
fn a_stream_that_is_read_more_slowly_than_it_is_generated_ends() {
    let server = Server::start(&["--timeout-send", "3600"]);
    let stream = server.open("POST", COMPLETIONS, &wide(json!({"n": 16})).to_string());
    server.wait_for("sequences_running", 16.0);
    server.wait_for("sequences_running", 0.0);
    let generated = server.metric("generated_tokens_total");
    assert!(generated < 16.0 * 7900.0, "all {generated} tokens wait for the client");
    let rest = stream.rest();
    assert!(
        rest.contains("read more slowly than it is generated"),
        "{}",
        &rest[rest.len() - 500..]
    );
}

#[test]
fn a_server_stops_although_a_client_reads_nothing() {
    let server = Server::start(&["--drain-timeout", "1"]);
    let stream = server.open("POST", COMPLETIONS, &wide(json!({})).to_string());
    let half = sent(&server, HALF_A_HEADER);
    server.wait_for("sequences_running", 1.0);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    drop((stream, half));
}

/// A response of more bytes than a connection buffers, which is complete but not read.
fn large_unread_response(server: &Server) -> Connection {
    let fields = json!({"n": 8, "max_tokens": 1, "echo": true, "logprobs": 20});
    let body = completion(vec![7; LARGE_PROMPT], fields);
    let connection = server.open("POST", COMPLETIONS, &body.to_string());
    server.wait_for("requests_total{outcome=\"completed\"}", 1.0);
    connection
}

const LARGE_PROMPT: usize = 1000;

fn assert_complete(connection: Connection) {
    let choices = connection.response().json()["choices"].as_array().unwrap().clone();
    let tokens = |choice: &Value| choice["logprobs"]["tokens"].as_array().unwrap().len();
    assert_eq!(choices.iter().map(tokens).collect::<Vec<_>>(), [LARGE_PROMPT + 1; 8]);
}

#[test]
fn a_response_is_sent_to_its_end_while_the_server_stops() {
    let server = Server::start(&[]);
    let connection = large_unread_response(&server);
    server.terminate();
    // The server closes idle connections at once.
    let began = Instant::now();
    while TcpStream::connect(server.address()).is_ok() {
        assert!(began.elapsed() < TIMEOUT, "the server does not stop");
    }
    assert_complete(connection);
}

#[test]
fn a_response_is_sent_to_its_end_while_others_want_its_connection() {
    let server = Server::start(&["--limit-concurrency", "2"]);
    let connection = large_unread_response(&server);
    let _idle = sent(&server, "");
    assert_eq!(server.get("/health").status, 200);
    assert_complete(connection);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
    let body = completion("a lamp", json!({"max_tokens": 3})).to_string();
    let length = body.len();
    let post = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let last = "GET /v1/models HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    let all = [get("/health"), post, get("/nowhere"), last.to_owned()].concat();
    let responses = rest(&sent(&server, &all));
    let found = ["\"status\":\"ok\"", "\"text_completion\"", "unknown_url", "\"max_model_len\""]
        .map(|text| responses.find(text).unwrap_or_else(|| panic!("no {text} in {responses}")));
    assert!(found.is_sorted(), "{responses}");
}

#[test]
fn a_connection_serves_requests_one_after_the_other() {
    let server = Server::start(&["--timeout-header", "3600", "--timeout-keep-alive", "3600"]);
    let mut stream = sent(&server, "");
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        stream.write_all(b"GET /v1/models HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 200 OK\r\n");
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line).unwrap();
            if let Some(number) = line.strip_prefix("content-length: ") {
                length = number.trim().parse().unwrap();
            }
        }
        lines.read_exact(&mut vec![0; length]).unwrap();
    }
}

#[test]
fn an_oversized_header_is_refused() {
    let server = Server::start(&[]);
    let header = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40 << 10));
    let response = rest(&sent(&server, &header));
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
}
