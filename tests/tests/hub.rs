//! Models by name, from a local hub: the environment variables, and each kind of model in a command that takes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_test_server::{Request, Response, Server};
use embodied_r_tests::{VisionModel, binary, stderr_of, stdout_of, tiny_model};
use serde_json::json;
use tempfile::TempDir;

use crate::merge::write_adapter;

/// A hub that serves the folders `org/name`, and the machine that uses it.
struct Hub {
    dir: TempDir,
    server: Server,
}

impl Hub {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("hub");
        fs::create_dir_all(folder.join("org")).unwrap();
        fs::write(dir.path().join("ids.json"), r#"{"sequences": [[5, 6, 7, 8]]}"#).unwrap();
        Self { dir, server: Server::start(move |request| answer(request, &folder)) }
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
        command.env("HF_ENDPOINT", self.server.url()).env("HF_HOME", self.dir.path().join("home"));
        command.env("HF_TOKEN", "secret");
        command
    }

    fn logprobs(&self, model: &str) -> Command {
        self.command(&["inspect", "logprobs", "--json", "--data", "ids.json", "--model", model])
    }

    /// The files that were sent.
    fn sent(&self) -> Vec<String> {
        let requests = self.server.requests().into_iter();
        let files = requests.filter(|it| it.method == "GET" && it.path.contains(RESOLVE));
        let mut sent: Vec<_> = files.map(|it| it.path[1..].replace(RESOLVE, "")).collect();
        sent.sort();
        sent
    }

    /// The tokens that came with the requests.
    fn tokens(&self) -> BTreeSet<String> {
        let requests = self.server.requests().into_iter();
        requests.map(|it| it.header("authorization").unwrap_or_default().to_owned()).collect()
    }
}

/// Between the name of a repository and that of a file.
const RESOLVE: &str = "/resolve/c0ffee";

fn answer(request: &Request, folder: &Path) -> Response {
    let path = &request.path[1..];
    if path.contains("gated") {
        return Response::new(403, "").header("x-error-code", "GatedRepo");
    }
    if let Some(repo) = path.strip_prefix("api/models/") {
        let Ok(files) = fs::read_dir(folder.join(repo.trim_end_matches("/revision/main"))) else {
            return Response::new(404, "").header("x-error-code", "RepoNotFound");
        };
        let name = |file: fs::DirEntry| file.file_name().into_string().unwrap();
        let siblings: Vec<_> =
            files.map(|file| json!({ "rfilename": name(file.unwrap()) })).collect();
        return Response::json(&json!({ "sha": "c0ffee", "siblings": siblings }));
    }
    let file = path.replace(RESOLVE, "");
    let bytes = fs::read(folder.join(&file)).unwrap();
    let size = bytes.len().to_string();
    let etag = format!("\"{}\"", file.replace('/', "-"));
    Response::new(200, bytes).header("etag", etag).header("x-linked-size", size)
}

#[test]
fn a_model_is_downloaded_once_into_hf_home_and_then_runs_offline() {
    let hub = Hub::new();
    tiny_model::write(&hub.repo("tiny"));
    let first = stdout_of(&mut hub.logprobs("org/tiny"));
    assert!(hub.dir.path().join("home/hub/models--org--tiny/refs/main").is_file());
    assert_eq!(hub.tokens(), BTreeSet::from(["Bearer secret".to_owned()]));
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
    assert_eq!(hub.tokens(), BTreeSet::from(["Bearer of the file".to_owned()]));
}

#[test]
fn offline_mode_downloads_nothing_and_says_so() {
    let hub = Hub::new();
    tiny_model::write(&hub.repo("tiny"));
    let error = stderr_of(hub.logprobs("org/tiny").env("HF_HUB_OFFLINE", "1"), 1);
    assert!(error.contains("`org/tiny` (main) is not in the Hugging Face cache"), "{error}");
    assert!(hub.tokens().is_empty());
}

#[test]
fn gated_and_unknown_models_say_what_to_do() {
    let hub = Hub::new();
    let gated = stderr_of(&mut hub.logprobs("org/gated"), 1);
    let page = format!("accept its terms at `{}/org/gated` and set `HF_TOKEN`", hub.server.url());
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
