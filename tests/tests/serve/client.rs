//! A server of the real binary with the tiny model, and a client that may disconnect at any moment.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use embodied_r_tests::{binary, tiny_model};
use serde_json::{Value, json};

/// Longer than any request of these tests.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
    key: Option<String>,
    dir: Option<tempfile::TempDir>,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The events of a stream without the final `[DONE]`.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut data: Vec<&str> = self
            .body
            .split("\n\n")
            .filter_map(|event| event.trim().strip_prefix("data: "))
            .collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{self:?}");
        data.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// The memory of a server, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

/// A connection whose response is not read yet.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Server {
    /// A server of the tiny model, called `tiny`, with these further arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, None)
    }

    /// [`Self::start`] with a required API key.
    pub(crate) fn start_with(arguments: &[&str], key: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        tiny_model::write(&dir.path().join("model"));
        Self::launch(dir, arguments, key)
    }

    /// A server of the model at `dir/model`, called `tiny`.
    pub(crate) fn launch(dir: tempfile::TempDir, arguments: &[&str], key: Option<&str>) -> Self {
        Self::of(dir.path(), arguments, key).keeping(dir)
    }

    /// The same server, with the folder that it needs.
    pub(crate) fn keeping(self, dir: tempfile::TempDir) -> Self {
        Self { dir: Some(dir), ..self }
    }

    /// [`Self::launch`] with a borrowed folder.
    pub(crate) fn of(dir: &Path, arguments: &[&str], key: Option<&str>) -> Self {
        let mut command = command(dir);
        command.args(arguments);
        Self::spawn(command, key)
    }

    /// A server that may open `files` files.
    pub(crate) fn with_file_limit(files: usize, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        tiny_model::write(&dir.path().join("model"));
        let own = command(dir.path());
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &files.to_string()]);
        command.current_dir(dir.path()).arg(own.get_program()).args(own.get_args());
        command.args(arguments);
        Self::spawn(command, None).keeping(dir)
    }

    /// The server that a command starts.
    pub(crate) fn spawn(mut command: Command, key: Option<&str>) -> Self {
        command.stdout(Stdio::piped());
        match key {
            Some(key) => command.env("EMBODIED_R_API_KEY", key),
            None => command.env_remove("EMBODIED_R_API_KEY"),
        };
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let process = Process(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| {
            panic!("the server printed `{line}`");
        });
        let address = address.parse().unwrap();
        Self { process, address, key: key.map(str::to_owned), dir: None }
    }

    /// The same server with another key for further requests.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(crate) fn model_dir(&self) -> std::path::PathBuf {
        self.dir.as_ref().unwrap().path().join("model")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes of memory that the server occupies now, and the most that it has.
    pub(crate) fn memory(&self) -> Memory {
        let path = format!("/proc/{}/status", self.process.0.id());
        let status = std::fs::read_to_string(path).unwrap();
        let bytes = |field: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
        };
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }

    /// The response to a POST request.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.open("POST", path, &body.to_string()).response()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.open("GET", path, "").response()
    }

    /// Sends a request and reads nothing yet.
    pub(crate) fn open(&self, method: &str, path: &str, body: &str) -> Connection {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let key = self.key.iter().map(|key| format!("Authorization: Bearer {key}\r\n"));
        let key: String = key.collect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n{key}Content-Type: \
             application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // The server may close the connection before the whole body is sent.
        let _ = stream.write_all(body.as_bytes());
        Connection(BufReader::new(stream))
    }

    /// A metric of `/metrics`, such as `requests_total{outcome="completed"}`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").body;
        let line =
            |line: &str| line.strip_prefix(&format!("embodied_r_{name} ")).map(str::to_owned);
        let value = metrics.lines().find_map(line);
        value.unwrap_or_else(|| panic!("no `{name}` in\n{metrics}")).parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) fn wait_for(&self, name: &str, value: f64) {
        let began = Instant::now();
        while self.metric(name) != value {
            let found = self.metric(name);
            assert!(began.elapsed() < TIMEOUT, "`{name}` is {found}, never {value}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends SIGTERM to the server.
    pub(crate) fn terminate(&self) {
        let id = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.0.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < TIMEOUT, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The command line of a server of `dir/model` on a free port.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["serve", "--model", "model", "--port", "0"]);
    command.args(["--served-model-name", "tiny"]);
    command
}

impl Connection {
    /// Reads up to the first event of a stream.
    pub(crate) fn first_event(&mut self) {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ends without an event");
        }
    }

    /// Reads the response to the end and joins its chunks.
    pub(crate) fn response(mut self) -> Response {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (headers, body) = text.split_once("\r\n\r\n").unwrap_or(("", &text));
        let headers = headers.to_ascii_lowercase();
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = match headers.contains("transfer-encoding: chunked") {
            true => joined(body),
            false => body.to_owned(),
        };
        Response { status: status.unwrap_or(0), headers, body }
    }

    /// The unread rest of a stream, without decoding.
    pub(crate) fn rest(mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        text
    }
}

/// The content of a chunked body.
fn joined(mut body: &str) -> String {
    let mut content = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        content.push_str(&rest[..length]);
        body = rest.get(length + 2..).unwrap_or_default();
    }
    content
}

/// A body for `/v1/chat/completions` with the user message `text` and further fields.
pub(crate) fn chat(text: &str, fields: Value) -> Value {
    with(json!({"model": "tiny", "messages": [{"role": "user", "content": text}]}), fields)
}

/// A body for `/v1/completions` with `prompt` and further fields.
pub(crate) fn completion(prompt: impl Into<Value>, fields: Value) -> Value {
    with(json!({"model": "tiny", "prompt": prompt.into()}), fields)
}

fn with(mut body: Value, fields: Value) -> Value {
    if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
        body.extend(fields);
    }
    body
}
