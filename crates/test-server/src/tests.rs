use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::*;

/// Sends the requests on one connection, which it then ends, and reads all responses.
fn exchange(server: &Server, requests: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(requests.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut responses = String::new();
    stream.read_to_string(&mut responses).unwrap();
    responses
}

#[test]
fn a_connection_carries_several_requests_which_are_kept() {
    let reply = |request: &Request| Response::new(201, request.index.to_string()).header("a", "b");
    let server = Server::start(reply);
    let both =
        "HEAD /one HTTP/1.1\r\n\r\nPOST /two?3 HTTP/1.1\r\nX-Y: z\r\nContent-Length: 2\r\n\r\n{}";
    let head = "HTTP/1.1 201 X\r\na: b\r\ncontent-length: 1\r\n\r\n";
    assert_eq!(exchange(&server, both), format!("{head}{head}1"));
    let [first, second] = &server.requests()[..] else { panic!() };
    assert_eq!((&first.method[..], &first.path[..], first.index), ("HEAD", "/one", 0));
    assert_eq!((&second.path[..], second.header("x-y")), ("/two?3", Some("z")));
    assert_eq!(second.json(), serde_json::json!({}));
}

#[test]
fn a_path_of_its_own_takes_only_posts() {
    let server = Server::at("/a", |_| Response::new(200, ""));
    for (request, status) in [("POST /a?b", 200), ("GET /a", 404), ("POST /b", 404)] {
        let response = exchange(&server, &format!("{request} HTTP/1.1\r\n\r\n"));
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {response}");
    }
}

#[test]
fn a_response_can_end_early_and_a_client_that_left_gets_none() {
    let whole = Response::new(200, "whole");
    let late = whole.clone().after(Duration::from_secs(3600));
    let server = Server::start(script([whole.cut_at(2), Response::disconnect(), late]));
    let get = || exchange(&server, "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(get(), "HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nwh");
    assert_eq!((get(), get()), (String::new(), String::new()));
    assert_eq!((server.requests().len(), server.answered(), server.sent_bytes()), (3, 1, 2));
}

#[test]
fn a_request_beyond_the_script_fails_the_test() {
    let server = Server::start(script([]));
    assert_eq!(exchange(&server, "GET / HTTP/1.1\r\n\r\n"), "");
    catch_unwind(AssertUnwindSafe(|| drop(server))).unwrap_err();
}

#[test]
fn a_server_that_is_dropped_closes_its_connections_and_its_port() {
    let server = Server::start(|_| Response::hang());
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    while server.requests().is_empty() {
        thread::yield_now();
    }
    let address = server.address();
    drop(server);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    TcpStream::connect(address).unwrap_err();
}
