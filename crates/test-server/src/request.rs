use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde_json::Value;

/// A request that was received whole.
#[derive(Debug)]
pub struct Request {
    /// The number of requests before this one.
    pub index: usize,
    /// `GET`, `POST` or another.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    /// As many bytes as `content-length` says.
    pub body: Vec<u8>,
}

impl Request {
    /// The next request of a connection; `None` where it ends.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(None);
            }
        }
        let head = String::from_utf8_lossy(&head);
        let (first, headers) = head.split_once("\r\n").expect("a head has lines");
        let headers: BTreeMap<_, _> = headers
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = words.next().zip(words.next()).expect("a method and a path");
        let length = headers.get("content-length").map_or("0", String::as_str);
        let mut body = vec![0; length.parse().expect("a length")];
        reader.read_exact(&mut body)?;
        Ok(Some(Self { index: 0, method, path, headers, body }))
    }

    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}
