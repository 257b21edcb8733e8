//! A hub and its storage server on two local ports. Small files come from the hub, weights from the storage.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::hub::checksum::Checksum;

/// The commit of all repositories.
const COMMIT: &str = "c0ffee";
/// In place of a file's name: the list of files.
pub(super) const LIST: &str = "the list of files";

/// What goes wrong with one request for the bytes of a file.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The connection ends after so many bytes.
    Cut(usize),
    /// All bytes are sent, whatever the range.
    NoRange,
    /// Both.
    CutNoRange(usize),
    /// A range that starts elsewhere.
    OtherRange,
    /// The first byte is another.
    Flip,
    /// More bytes than there are; 17 MiB more of the list.
    Longer,
    /// A status, with the hub's code of the error.
    Status(u16, &'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Hub,
    Storage,
}

/// A request that was received.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) host: Host,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) range: Option<String>,
    pub(super) token: Option<String>,
}

#[derive(Default)]
struct State {
    /// The files, as `org/name/file`; those of data sets, as `datasets/org/name/file`.
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The next faults of a file, by name.
    faults: Mutex<Vec<(String, Fault)>>,
    requests: Mutex<Vec<Request>>,
    storage: Mutex<String>,
    /// The ETag of all files in place of their hashes.
    etag: Mutex<Option<String>>,
}

pub(super) struct Server {
    pub(super) url: String,
    state: Arc<State>,
}

impl Server {
    /// Serves `files`, each `org/name/file` with its bytes.
    pub(super) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let state = Arc::new(State::default());
        let owned = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
        state.files.lock().unwrap().extend(owned);
        *state.storage.lock().unwrap() = listen(Host::Storage, &state);
        Self { url: listen(Host::Hub, &state), state }
    }

    /// Serves the files of `org/model`, each with its name as text.
    pub(super) fn of(names: &[&str]) -> Self {
        let server = Self::new(&[]);
        let text = |name: &&str| (format!("org/model/{name}"), format!("of {name}").into_bytes());
        server.state.files.lock().unwrap().extend(names.iter().map(text));
        server
    }

    /// The next requests for the bytes of `file` fail, one by each of `faults`.
    pub(super) fn fails(self, file: &str, faults: &[Fault]) -> Self {
        let faults = faults.iter().map(|fault| (file.to_owned(), fault.clone()));
        self.state.faults.lock().unwrap().extend(faults);
        self
    }

    pub(super) fn with_etag(self, etag: &str) -> Self {
        *self.state.etag.lock().unwrap() = Some(etag.to_owned());
        self
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The ranges of the requests for the bytes of a file.
    pub(super) fn ranges(&self, file: &str) -> Vec<Option<String>> {
        let requests = self.requests().into_iter();
        let is_last = |request: &Request| match is_weights(file) {
            true => request.host == Host::Storage,
            false => true,
        };
        let of_file = requests.filter(|it| it.method == "GET" && it.path.contains(file));
        of_file.filter(is_last).map(|request| request.range).collect()
    }
}

/// Starts a server; returns its URL.
fn listen(host: Host, state: &Arc<State>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = Arc::clone(state);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let state = Arc::clone(&state);
            thread::spawn(move || answer(stream.unwrap(), host, &state));
        }
    });
    url
}

fn is_weights(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".gguf")
}

/// Answers one request and closes the connection.
fn answer(mut stream: TcpStream, host: Host, state: &State) {
    let lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let mut lines = lines.take_while(|line| !line.is_empty());
    let Some(first) = lines.next() else { return };
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| {
            line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        })
        .collect();
    let mut words = first.split(' ').map(str::to_owned);
    let request = Request {
        host,
        method: words.next().unwrap(),
        path: words.next().unwrap(),
        range: headers.get("range").cloned(),
        token: headers.get("authorization").cloned(),
    };
    state.requests.lock().unwrap().push(request.clone());
    let (head, body) = response(&request, state);
    let head = head.join("\r\n");
    let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes());
    if request.method != "HEAD" {
        let _ = stream.write_all(&body);
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// The lines of the head, and the body.
fn response(request: &Request, state: &State) -> (Vec<String>, Vec<u8>) {
    if let Some(repo) = request.path.strip_prefix("/api/models/") {
        let (repo, _) = repo.split_once("/revision/").unwrap();
        return listing(repo, state);
    }
    if let Some(repo) = request.path.strip_prefix("/api/datasets/") {
        let (repo, _) = repo.split_once("/revision/").unwrap();
        return listing(&format!("datasets/{repo}"), state);
    }
    let path = request.path.split('?').next().unwrap();
    let name = path[1..].replace("/resolve/c0ffee", "");
    let files = state.files.lock().unwrap();
    let Some(bytes) = files.get(&name) else {
        return (vec!["404 Not Found".into(), "x-error-code: EntryNotFound".into()], Vec::new());
    };
    let etag = state.etag.lock().unwrap().clone().unwrap_or_else(|| hash(&name, bytes));
    let length = bytes.len();
    if is_weights(&name) && request.host == Host::Hub {
        let storage = state.storage.lock().unwrap();
        let head = vec![
            "302 Found".to_owned(),
            format!("location: {storage}/{name}?signature=signed"),
            format!("x-linked-etag: \"{etag}\""),
            format!("x-linked-size: {length}"),
            "etag: \"of the redirect\"".to_owned(),
            "content-length: 0".to_owned(),
        ];
        return (head, Vec::new());
    }
    let fault = match request.method.as_str() {
        "HEAD" => None,
        _ => next_fault(state, name.rsplit('/').next().unwrap()),
    };
    content(bytes, &etag, request.range.as_deref(), fault)
}

fn listing(repo: &str, state: &State) -> (Vec<String>, Vec<u8>) {
    let fault = next_fault(state, LIST);
    if let Some(Fault::Status(status, code)) = fault {
        return (vec![format!("{status} Failed"), format!("x-error-code: {code}")], Vec::new());
    }
    let prefix = format!("{repo}/");
    let files = state.files.lock().unwrap();
    let siblings: Vec<_> = files
        .keys()
        .filter_map(|name| name.strip_prefix(&prefix))
        .map(|name| serde_json::json!({ "rfilename": name }))
        .collect();
    if siblings.is_empty() {
        return (vec!["404 Not Found".into(), "x-error-code: RepoNotFound".into()], Vec::new());
    }
    let mut list = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
    if let Some(Fault::Longer) = fault {
        list.push_str(&" ".repeat(17 << 20));
    }
    (vec!["200 OK".into(), format!("content-length: {}", list.len())], list.into_bytes())
}

fn content(
    bytes: &[u8],
    etag: &str,
    range: Option<&str>,
    fault: Option<Fault>,
) -> (Vec<String>, Vec<u8>) {
    if let Some(Fault::Status(status, code)) = fault {
        return (vec![format!("{status} Failed"), format!("x-error-code: {code}")], Vec::new());
    }
    let asked = range.map(|range| range.strip_prefix("bytes=").unwrap().trim_end_matches('-'));
    let asked: Option<usize> = asked.map(|from| from.parse().unwrap());
    let from = match fault {
        Some(Fault::NoRange | Fault::CutNoRange(_)) => None,
        Some(Fault::OtherRange) => asked.map(|from| from - 1),
        _ => asked,
    };
    if from.is_some_and(|from| from >= bytes.len()) {
        return (vec!["416 Range Not Satisfiable".into()], Vec::new());
    }
    let mut body = bytes[from.unwrap_or(0)..].to_vec();
    if let Some(Fault::Longer) = fault {
        body.push(0);
    }
    let mut head = vec![
        if from.is_some() { "206 Partial Content" } else { "200 OK" }.to_owned(),
        format!("content-length: {}", body.len()),
        format!("etag: \"{etag}\""),
    ];
    if let Some(from) = from {
        head.push(format!("content-range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
    }
    match fault {
        Some(Fault::Cut(length) | Fault::CutNoRange(length)) => body.truncate(length),
        Some(Fault::Flip) => body[0] ^= 1,
        _ => {}
    }
    (head, body)
}

fn next_fault(state: &State, file: &str) -> Option<Fault> {
    let mut faults = state.faults.lock().unwrap();
    let next = faults.iter().position(|(name, _)| name == file)?;
    Some(faults.remove(next).1)
}

/// The ETag that the hub gives a file.
pub(super) fn hash(name: &str, bytes: &[u8]) -> String {
    let kind = if is_weights(name) { "0".repeat(64) } else { "0".repeat(40) };
    let mut checksum = Checksum::of(&kind, bytes.len() as u64);
    checksum.update(bytes);
    checksum.finish().unwrap()
}
