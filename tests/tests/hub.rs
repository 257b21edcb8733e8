//! Models by name, from a local hub: the environment variables, and each kind of model in a command that takes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use assert_cmd::assert::OutputAssertExt as _;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use embodied_r_tests::{VisionModel, binary, stderr_of, stdout_of, tiny_model};
use serde_json::json;
use tempfile::TempDir;

use crate::merge::write_adapter;

/// A hub that serves the folders `org/name`, and the machine that uses it.
struct Hub {
    dir: TempDir,
    url: String,
    /// The files that were sent, and the tokens that came with the requests.
    sent: Arc<Mutex<Vec<String>>>,
    tokens: Arc<Mutex<BTreeSet<String>>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Served {
    folder: PathBuf,
    sent: Arc<Mutex<Vec<String>>>,
    tokens: Arc<Mutex<BTreeSet<String>>>,
}

impl Hub {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("hub/org")).unwrap();
        let served =
            Served { folder: dir.path().join("hub"), sent: Arc::default(), tokens: Arc::default() };
        let (sent, tokens) = (Arc::clone(&served.sent), Arc::clone(&served.tokens));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(served);
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        fs::write(dir.path().join("ids.json"), r#"{"sequences": [[5, 6, 7, 8]]}"#).unwrap();
        Self { dir, url, sent, tokens, _runtime: runtime }
    }

    /// The folder of a repository.
    fn repo(&self, name: &str) -> PathBuf {
        self.dir.path().join("hub/org").join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.dir.path()).args(args);
        for name in ["HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"]
        {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.url).env("HF_HOME", self.dir.path().join("home"));
        command.env("HF_TOKEN", "secret");
        command
    }

    fn logprobs(&self, model: &str) -> Command {
        self.command(&["inspect", "logprobs", "--json", "--data", "ids.json", "--model", model])
    }

    fn sent(&self) -> Vec<String> {
        let mut sent = self.sent.lock().unwrap().clone();
        sent.sort();
        sent
    }
}

async fn answer(
    State(served): State<Served>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let token = headers.get("authorization").map_or("", |token| token.to_str().unwrap());
    served.tokens.lock().unwrap().insert(token.to_owned());
    let path = uri.path().trim_start_matches('/');
    if path.contains("gated") {
        return (StatusCode::FORBIDDEN, [("x-error-code", "GatedRepo")]).into_response();
    }
    if let Some(repo) = path.strip_prefix("api/models/") {
        let folder = served.folder.join(repo.trim_end_matches("/revision/main"));
        let Ok(files) = fs::read_dir(folder) else {
            return (StatusCode::NOT_FOUND, [("x-error-code", "RepoNotFound")]).into_response();
        };
        let name = |file: fs::DirEntry| file.file_name().into_string().unwrap();
        let siblings: Vec<_> =
            files.map(|file| json!({ "rfilename": name(file.unwrap()) })).collect();
        return json!({ "sha": "c0ffee", "siblings": siblings }).to_string().into_response();
    }
    let file = path.replace("/resolve/c0ffee", "");
    let bytes = fs::read(served.folder.join(&file)).unwrap();
    if method == Method::GET {
        served.sent.lock().unwrap().push(file.clone());
    }
    let headers = [
        ("etag", format!("\"{}\"", file.replace('/', "-"))),
        ("x-linked-size", bytes.len().to_string()),
    ];
    (headers, bytes).into_response()
}

#[test]
fn a_model_is_downloaded_once_into_hf_home_and_then_runs_offline() {
    let hub = Hub::new();
    tiny_model::write(&hub.repo("tiny"));
    let first = stdout_of(&mut hub.logprobs("org/tiny"));
    assert!(hub.dir.path().join("home/hub/models--org--tiny/refs/main").is_file());
    assert_eq!(*hub.tokens.lock().unwrap(), BTreeSet::from(["Bearer secret".to_owned()]));
    let sent = hub.sent();
    assert!(sent.contains(&"org/tiny/model.safetensors".to_owned()), "{sent:?}");
    let mut offline = hub.logprobs("org/tiny");
    offline.env("HF_HUB_OFFLINE", "1").env("HF_ENDPOINT", "http://127.0.0.1:9");
    assert_eq!(stdout_of(&mut offline), first);
    assert_eq!(stdout_of(&mut hub.logprobs("org/tiny")), first);
    assert_eq!(hub.sent(), sent, "no file is downloaded twice");
}

#[test]
fn hf_hub_cache_and_the_token_file_are_used() {
    let hub = Hub::new();
    tiny_model::write(&hub.repo("tiny"));
    fs::create_dir(hub.dir.path().join("home")).unwrap();
    fs::write(hub.dir.path().join("home/token"), "of the file\n").unwrap();
    let mut command = hub.logprobs("org/tiny");
    command.env("HF_HUB_CACHE", "elsewhere").env_remove("HF_TOKEN").assert().code(0);
    assert!(hub.dir.path().join("elsewhere/models--org--tiny").is_dir());
    assert!(!hub.dir.path().join("home/hub").exists());
    assert_eq!(*hub.tokens.lock().unwrap(), BTreeSet::from(["Bearer of the file".to_owned()]));
}

#[test]
fn offline_mode_downloads_nothing_and_says_so() {
    let hub = Hub::new();
    tiny_model::write(&hub.repo("tiny"));
    let error = stderr_of(hub.logprobs("org/tiny").env("HF_HUB_OFFLINE", "1"), 1);
    assert!(error.contains("`org/tiny` (main) is not in the Hugging Face cache"), "{error}");
    assert!(hub.tokens.lock().unwrap().is_empty());
}

#[test]
fn gated_and_unknown_models_say_what_to_do() {
    let hub = Hub::new();
    let gated = stderr_of(&mut hub.logprobs("org/gated"), 1);
    let page = format!("accept its terms at `{}/org/gated` and set `HF_TOKEN`", hub.url);
    assert!(gated.contains(&page), "{gated}");
    let unknown = stderr_of(&mut hub.logprobs("org/unknown"), 1);
    assert!(unknown.contains("cannot download `org/unknown` (main)"), "{unknown}");
    assert!(unknown.contains("there is no such repository"), "{unknown}");
}

/// An adapter of `org/tiny`.
fn adapter(hub: &Hub) {
    tiny_model::write(&hub.repo("tiny"));
    let folder = hub.repo("adapter");
    write_adapter(&folder, "o_proj");
    let config = fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let config = config
        .replace(r#""base_model_name_or_path":"model""#, r#""base_model_name_or_path":"org/tiny""#);
    assert!(config.contains("org/tiny"));
    fs::write(folder.join("adapter_config.json"), config).unwrap();
}

#[test]
fn an_adapter_runs_with_the_base_model_that_it_names() {
    let hub = Hub::new();
    adapter(&hub);
    let adapted = stdout_of(&mut hub.logprobs("org/adapter"));
    let base = stdout_of(hub.logprobs("org/tiny").env("HF_HUB_OFFLINE", "1"));
    assert_ne!(adapted, base);
}

#[test]
fn an_adapter_is_merged_by_name() {
    let hub = Hub::new();
    adapter(&hub);
    let arguments =
        ["merge", "--model", "org/tiny", "--adapter", "org/adapter", "--output", "merged"];
    hub.command(&arguments).assert().code(0);
    let merged = stdout_of(&mut hub.logprobs("merged"));
    assert_eq!(merged, stdout_of(&mut hub.logprobs("org/adapter")));
}

#[test]
fn a_gguf_file_comes_with_its_vision_encoder_where_images_are_seen() {
    let hub = Hub::new();
    VisionModel::Gguf.write(&hub.repo("vl"));
    fs::copy(hub.repo("vl").join("model.gguf"), hub.repo("vl").join("vl-F32.gguf")).unwrap();
    let model = "org/vl:F32";
    let snapshot = hub.dir.path().join("home/hub/models--org--vl/snapshots/c0ffee");
    let files = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    stdout_of(&mut hub.logprobs(model));
    assert_eq!(files(&snapshot), ["vl-F32.gguf"]);
    let mut caption = hub.command(&["bench", "caption", "--model", model]);
    caption.args(["--frames", "1", "--runs", "1", "--size", "112", "112", "--new", "3"]);
    let output = stdout_of(&mut caption);
    assert!(output.contains("prefill_tokens_per_s"), "{output}");
    assert_eq!(files(&snapshot), ["mmproj-model.gguf", "vl-F32.gguf"]);
    let choice = stderr_of(&mut hub.logprobs("org/vl"), 1);
    assert!(choice.contains("several GGUF files"), "{choice}");
    assert!(choice.contains("model.gguf") && choice.contains("vl-F32.gguf"), "{choice}");
}
