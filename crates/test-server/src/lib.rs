//! A scripted HTTP server for tests: it plays a chat API, a reward service, the Hugging Face Hub or a media host.
//!
//! A closure, or a [`script`], gives the [`Response`] to each [`Request`]: also one that comes late, ends early or never
//! comes. The server keeps all requests. If the closure panics, as it does beyond the end of a script, the connection is
//! closed and the server panics when it is dropped, so the test fails.
//!
//! ```
//! use std::io::{Read as _, Write as _};
//! use embodied_r_test_server::{Response, Server, script};
//!
//! let server = Server::start(script([Response::new(503, "busy").header("retry-after", "1")]));
//! let mut connection = std::net::TcpStream::connect(server.address())?;
//! connection.write_all(b"GET /a?b HTTP/1.1\r\n\r\n")?;
//! connection.shutdown(std::net::Shutdown::Write)?;
//! let mut response = String::new();
//! connection.read_to_string(&mut response)?;
//! assert!(response.starts_with("HTTP/1.1 503 ") && response.ends_with("\r\n\r\nbusy"));
//! assert_eq!(server.requests()[0].path, "/a?b");
//! # Ok::<(), std::io::Error>(())
//! ```

#![allow(clippy::expect_used, clippy::panic)]

mod request;
mod response;
#[cfg(test)]
mod tests;

pub use request::Request;
pub use response::Response;

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};

/// A server on a free local port; stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What the threads of the connections share.
#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<Vec<Arc<Request>>>,
    connections: Mutex<Vec<Weak<TcpStream>>>,
    answered: AtomicUsize,
    sent_bytes: AtomicU64,
    has_panicked: AtomicBool,
    is_stopping: AtomicBool,
}

impl Server {
    /// Responds to each request with what `reply` returns, which runs on the connection's own thread.
    ///
    /// # Panics
    /// No port is free.
    pub fn start(reply: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound");
        let (shared, reply) = (Arc::<Shared>::default(), Arc::new(reply));
        let state = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if state.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                let stream = Arc::new(stream);
                lock(&state.connections).push(Arc::downgrade(&stream));
                let (state, reply) = (Arc::clone(&state), Arc::clone(&reply));
                // Fails when the client closes the connection.
                thread::spawn(move || state.converse(&stream, &*reply));
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Responds to POST requests to `path`, with any query; others get 404.
    pub fn at(path: &str, reply: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let path = path.to_owned();
        Self::start(move |request| match request.path.split('?').next() {
            Some(of) if of == path && request.method == "POST" => reply(request),
            _ => Response::new(404, ""),
        })
    }

    /// A chat API, which responds to POST requests to `/v1/chat/completions`.
    pub fn chat(reply: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::at("/v1/chat/completions", reply)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and the address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL of a chat API.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// All requests so far, each from before its response.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        lock(&self.shared.requests).clone()
    }

    /// The bodies of all requests so far, which must be JSON.
    pub fn bodies(&self) -> Vec<serde_json::Value> {
        self.requests().iter().map(|request| request.json()).collect()
    }

    /// How many responses were begun. A client that disconnects during a response's delay gets none.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// How many bytes of bodies were sent.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        // Ends the wait for a connection.
        let _ = TcpStream::connect(self.address);
        let _ = self.accepting.take().map(JoinHandle::join);
        for stream in lock(&self.shared.connections).iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let has_panicked = self.shared.has_panicked.load(Ordering::SeqCst);
        assert!(!has_panicked || thread::panicking(), "a reply of the test's server panicked");
    }
}

impl Shared {
    /// Receives requests and responds to them until one side closes the connection.
    fn converse(&self, stream: &TcpStream, reply: &dyn Fn(&Request) -> Response) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(mut request) = Request::read(&mut reader)? {
            let request = {
                let mut requests = lock(&self.requests);
                request.index = requests.len();
                requests.push(Arc::new(request));
                Arc::clone(&requests[requests.len() - 1])
            };
            let Ok(response) = catch_unwind(AssertUnwindSafe(|| reply(&request))) else {
                self.has_panicked.store(true, Ordering::SeqCst);
                break;
            };
            if !response.send(stream, &request.method, self)? {
                break;
            }
        }
        Ok(())
    }
}

/// Replies with `responses` in order, and panics when there are no more.
pub fn script(
    responses: impl IntoIterator<Item = Response>,
) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    let left = Mutex::new(responses.into_iter().collect::<VecDeque<_>>());
    move |_| {
        let next = lock(&left).pop_front();
        next.expect("the script has a response for every request")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds the lock")
}
