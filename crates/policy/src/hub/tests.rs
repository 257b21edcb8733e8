use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

/// A hub with one repository, `org/model`, on a local port.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &files, &seen);
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers one request and closes the connection.
fn answer(stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, seen: &Mutex<Vec<String>>) {
    let mut lines =
        BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| {
            line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        })
        .collect();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let token = headers.get("authorization").map_or("", |token| token.as_str());
    seen.lock().unwrap().push(format!("{path} {token}"));
    let siblings: Vec<_> =
        files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
    let info =
        serde_json::json!({ "sha": "c0ffee", "siblings": siblings }).to_string().into_bytes();
    let file = path.strip_prefix("/org/model/resolve/main/").and_then(|name| files.get(name));
    let (status, body, all) = match (path.as_str(), file) {
        ("/api/models/org/model/revision/main", _) => ("200 OK", info.as_slice(), info.len()),
        (_, Some(bytes)) => {
            let (from, to) =
                headers["range"].strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let to = to.parse::<usize>().unwrap().min(bytes.len() - 1);
            ("206 Partial Content", &bytes[from.parse().unwrap()..=to], bytes.len())
        }
        _ => ("404 Not Found", &[][..], 0),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes 0-0/{all}\r\nx-repo-commit: c0ffee\r\n\
         etag: \"{:x}\"\r\nconnection: close\r\n\r\n",
        body.len(),
        path.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte)),
    );
    (&stream).write_all(&[head.as_bytes(), body].concat()).unwrap();
}

fn hub(cache: &Path, server: Option<&Server>) -> Hub {
    Hub {
        endpoint: server.map(|server| server.url.clone()),
        cache: Cache::new(cache.to_owned()),
        token: Some("secret".to_owned()),
        offline: server.is_none(),
    }
}

fn files(names: &[&str]) -> BTreeMap<String, Vec<u8>> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), format!("{{\"of\": \"{name}\"}}").into_bytes()))
        .collect()
}

#[test]
fn a_local_folder_is_returned_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let found = hub(dir.path(), None).resolve(dir.path().to_str().unwrap(), None).unwrap();
    assert_eq!(found, dir.path());
}

#[test]
fn an_invalid_name_is_rejected_without_network_access() {
    let dir = tempfile::tempdir().unwrap();
    for model in [
        "models/qwen/3b",
        "./missing",
        "/nowhere/at/all",
        "qwen",
        "../up",
        "a b/c",
        "org/",
        "~/model",
    ] {
        let error = hub(dir.path(), None).resolve(model, None).unwrap_err();
        assert!(matches!(error, Error::NoSuchModel { .. }), "{model}: {error}");
    }
}

#[test]
fn only_needed_files_are_downloaded_with_the_token_and_cached() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(files(&[
        "README.md",
        "config.json",
        "generation_config.json",
        "chat_template.jinja",
        "merges.txt",
        "tokenizer.json",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "onnx/config.json",
    ]));
    let dir = hub(cache.path(), Some(&server)).resolve("org/model", None).unwrap();
    let mut found: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    let wanted = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(found, wanted);
    let text = std::fs::read_to_string(dir.join("tokenizer.json")).unwrap();
    assert_eq!(text, "{\"of\": \"tokenizer.json\"}");
    assert!(server.requests().iter().all(|request| request.ends_with(" Bearer secret")));

    assert_eq!(
        hub(cache.path(), None).resolve("org/model", None).unwrap(),
        dir,
        "offline, from the cache"
    );
    assert_eq!(
        hub(cache.path(), None).resolve("org/model", Some("c0ffee")).unwrap(),
        dir,
        "by its commit"
    );
}

#[test]
fn a_snapshot_without_a_shard_is_completed() {
    let cache = tempfile::tempdir().unwrap();
    let mut all = files(&[
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]);
    let map = serde_json::json!({ "weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
    }});
    all.insert(INDEX_FILE.to_owned(), map.to_string().into_bytes());
    let server = Server::start(all);
    let dir = hub(cache.path(), Some(&server)).resolve("org/model", None).unwrap();
    let second = dir.join("model-00002-of-00002.safetensors");
    std::fs::remove_file(&second).unwrap();
    let message = hub(cache.path(), None).resolve("org/model", None).unwrap_err().to_string();
    assert!(
        message.contains("`org/model` (main)") && message.contains("`HF_HUB_OFFLINE`"),
        "{message}"
    );
    assert_eq!(hub(cache.path(), Some(&server)).resolve("org/model", None).unwrap(), dir);
    assert!(second.exists());
}

#[test]
fn an_unknown_model_is_reported_by_name() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(files(&["config.json"]));
    let message =
        hub(cache.path(), Some(&server)).resolve("org/other", None).unwrap_err().to_string();
    assert!(
        message.starts_with("cannot download `org/other` (main) from the Hugging Face Hub")
            && message.contains("404"),
        "{message}"
    );
}

#[test]
fn it_works_inside_an_async_runtime() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(files(&["config.json", "model.safetensors"]));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir =
        runtime.block_on(async { hub(cache.path(), Some(&server)).resolve("org/model", None) });
    assert!(dir.unwrap().join("model.safetensors").exists());
}
