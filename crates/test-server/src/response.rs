use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Shared;

/// An endless body ends here if the client reads on.
const MOST_ENDLESS_BYTES: usize = 512 << 20;

/// A response, or the lack of one.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
    end: End,
}

/// How a response ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// The connection waits for another request.
    Whole,
    /// The connection is closed after so many bytes of the body; without a number, nothing is sent.
    Cut(Option<usize>),
    /// As `Cut`, but the connection stays open until the client closes it.
    Hang(Option<usize>),
    /// The body is repeated until the client closes the connection.
    Endless,
}

impl Response {
    /// A response with a `content-length`.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, headers, body, delay: Duration::ZERO, end: End::Whole }
    }

    /// Status 200 and JSON.
    pub fn json(body: &Value) -> Self {
        Self::new(200, body.to_string()).header("content-type", "application/json")
    }

    /// A chat completion with this text.
    pub fn completion(text: &str) -> Self {
        let message = json!({"role": "assistant", "content": text});
        Self::json(&json!({"choices": [{"message": message, "finish_reason": "stop"}]}))
    }

    /// Closes the connection without a response.
    pub fn disconnect() -> Self {
        Self { end: End::Cut(None), ..Self::new(200, "") }
    }

    /// Sends nothing and keeps the connection open.
    pub fn hang() -> Self {
        Self { end: End::Hang(None), ..Self::new(200, "") }
    }

    /// A body of 512 MiB without a `content-length`.
    pub fn endless(status: u16) -> Self {
        Self { end: End::Endless, ..Self::new(status, [b' '; 1 << 16]) }
    }

    /// With another header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Is sent after `delay`, unless the client disconnects before.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Closes the connection after so many bytes of the body.
    #[must_use]
    pub fn cut_at(self, bytes: usize) -> Self {
        Self { end: End::Cut(Some(bytes)), ..self }
    }

    /// Sends no more than so many bytes of the body and keeps the connection open.
    #[must_use]
    pub fn hang_at(self, bytes: usize) -> Self {
        Self { end: End::Hang(Some(bytes)), ..self }
    }

    /// Sends it; returns whether the connection waits for another request.
    pub(crate) fn send(
        &self,
        mut stream: &TcpStream,
        method: &str,
        shared: &Shared,
    ) -> io::Result<bool> {
        if !self.delay.is_zero() {
            stream.set_read_timeout(Some(self.delay))?;
            let is_gone = matches!(stream.peek(&mut [0]), Ok(0));
            stream.set_read_timeout(None)?;
            if is_gone {
                return Ok(false);
            }
        }
        let bytes = match self.end {
            End::Whole | End::Endless => Some(self.body.len()),
            End::Cut(bytes) | End::Hang(bytes) => bytes.map(|bytes| bytes.min(self.body.len())),
        };
        if let Some(bytes) = bytes {
            shared.answered.fetch_add(1, Ordering::SeqCst);
            let body = if method == "HEAD" { &[][..] } else { &self.body[..bytes] };
            stream.write_all(&[self.head().as_bytes(), body].concat())?;
            shared.sent_bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
            let mut sent = body.len();
            while self.end == End::Endless && sent < MOST_ENDLESS_BYTES {
                stream.write_all(body)?;
                shared.sent_bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
                sent += body.len();
            }
        }
        if let End::Hang(_) = self.end {
            stream.read_to_end(&mut Vec::new())?;
        }
        Ok(self.end == End::Whole)
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} X\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.end != End::Endless {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        head + "\r\n"
    }
}
