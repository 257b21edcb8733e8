//! A hub and its storage server on two local ports. Small files come from the hub, weights from the storage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use embodied_r_test_server::{Request, Response, Server as HttpServer};

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

#[derive(Default)]
struct State {
    /// The files, as `org/name/file`; those of data sets, as `datasets/org/name/file`.
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The next faults of a file, by name.
    faults: Mutex<Vec<(String, Fault)>>,
    /// The ETag of all files in place of their hashes.
    etag: Mutex<Option<String>>,
}

pub(super) struct Server {
    pub(super) hub: HttpServer,
    pub(super) storage: HttpServer,
    state: Arc<State>,
}

impl Server {
    /// Serves `files`, each `org/name/file` with its bytes.
    pub(super) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let state = Arc::new(State::default());
        let owned = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
        state.files.lock().unwrap().extend(owned);
        let of_storage = Arc::clone(&state);
        let storage = HttpServer::start(move |request| response(request, &of_storage, None));
        let (of_hub, url) = (Arc::clone(&state), storage.url());
        let hub = HttpServer::start(move |request| response(request, &of_hub, Some(&url)));
        Self { hub, storage, state }
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

    /// The requests to the hub, then those to the storage.
    pub(super) fn requests(&self) -> Vec<Arc<Request>> {
        [self.hub.requests(), self.storage.requests()].concat()
    }

    /// The ranges of the requests for the bytes of a file.
    pub(super) fn ranges(&self, file: &str) -> Vec<Option<String>> {
        let host = if is_weights(file) { &self.storage } else { &self.hub };
        let requests = host.requests().into_iter();
        let of_file = requests.filter(|it| it.method == "GET" && it.path.contains(file));
        of_file.map(|request| request.header("range").map(str::to_owned)).collect()
    }
}

fn is_weights(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".gguf")
}

/// The hub's response, or the storage's, which has no `storage`.
fn response(request: &Request, state: &State, storage: Option<&str>) -> Response {
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
    let Some(bytes) = files.get(&name) else { return failure(404, "EntryNotFound") };
    let etag = state.etag.lock().unwrap().clone().unwrap_or_else(|| hash(&name, bytes));
    if let Some(storage) = storage.filter(|_| is_weights(&name)) {
        return Response::new(302, "")
            .header("location", format!("{storage}/{name}?signature=signed"))
            .header("x-linked-etag", format!("\"{etag}\""))
            .header("x-linked-size", bytes.len().to_string())
            .header("etag", "\"of the redirect\"");
    }
    let fault = match request.method.as_str() {
        "HEAD" => None,
        _ => next_fault(state, name.rsplit('/').next().unwrap()),
    };
    content(bytes, &etag, request.header("range"), fault)
}

fn failure(status: u16, code: &str) -> Response {
    Response::new(status, "").header("x-error-code", code)
}

fn listing(repo: &str, state: &State) -> Response {
    let fault = next_fault(state, LIST);
    if let Some(Fault::Status(status, code)) = fault {
        return failure(status, code);
    }
    let prefix = format!("{repo}/");
    let files = state.files.lock().unwrap();
    let siblings: Vec<_> = files
        .keys()
        .filter_map(|name| name.strip_prefix(&prefix))
        .map(|name| serde_json::json!({ "rfilename": name }))
        .collect();
    if siblings.is_empty() {
        return failure(404, "RepoNotFound");
    }
    let mut list = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
    if let Some(Fault::Longer) = fault {
        list.push_str(&" ".repeat(17 << 20));
    }
    Response::new(200, list)
}

fn content(bytes: &[u8], etag: &str, range: Option<&str>, fault: Option<Fault>) -> Response {
    if let Some(Fault::Status(status, code)) = fault {
        return failure(status, code);
    }
    let asked = range.map(|range| range.strip_prefix("bytes=").unwrap().trim_end_matches('-'));
    let asked: Option<usize> = asked.map(|from| from.parse().unwrap());
    let from = match fault {
        Some(Fault::NoRange | Fault::CutNoRange(_)) => None,
        Some(Fault::OtherRange) => asked.map(|from| from - 1),
        _ => asked,
    };
    if from.is_some_and(|from| from >= bytes.len()) {
        return Response::new(416, "");
    }
    let mut body = bytes[from.unwrap_or(0)..].to_vec();
    match fault {
        Some(Fault::Longer) => body.push(0),
        Some(Fault::Flip) => body[0] ^= 1,
        _ => {}
    }
    let status = if from.is_some() { 206 } else { 200 };
    let mut response = Response::new(status, body).header("etag", format!("\"{etag}\""));
    if let Some(from) = from {
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        response = response.header("content-range", range);
    }
    match fault {
        Some(Fault::Cut(length) | Fault::CutNoRange(length)) => response.cut_at(length),
        _ => response,
    }
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
