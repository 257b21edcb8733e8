//! Options that contradict each other or the machine, and requests for what there is not.

use std::fs;
use std::path::Path;
use std::process::Command;

use embodied_r_tests::{VisionModel, stderr_of, tiny_model};
use serde_json::{Value, json};

use super::client::{self, Server, chat};
use super::{CHAT, refused};

fn tiny() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    dir
}

fn with(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = client::command(dir);
    command.args(arguments).env_remove("EMBODIED_R_API_KEY");
    command
}

#[test]
fn an_option_that_cannot_work_is_named_before_the_model_is_loaded() {
    // There is no model: it would be the first error otherwise.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for (arguments, message) in [
        (
            &["--max-num-batched-tokens", "100"][..],
            "`--max-num-batched-tokens` must be at least `--max-num-seqs`, which is 256, not 100",
        ),
        (&["--max-num-seqs", "0"], "`--max-num-seqs` must be 1 or more, not 0"),
        (&["--kv-cache-gb", "0"], "`--kv-cache-gb` must be a number above 0, not 0"),
        (&["--request-memory-gb", "0.01"], "`--request-memory-gb` must be 0.14 or more"),
        (&["--max-prompt-pixels", "0"], "`--max-prompt-pixels` must be 1 or more, not 0"),
        (&["--allowed-local-media-path", "file"], "must be a directory, which `file` is not"),
        (&["--allowed-local-media-path", "none"], "must be a directory, which `none` is not"),
        (&["--allowed-media-domains", "https://a.org"], "`https://a.org` is not a host such as"),
        (&["--host", "nowhere.invalid"], "`--host` must be an address, or a host name that can"),
        (&["--host", ""], "`--host` must be an address, or a host name that can be resolved"),
        (&["--host", "192.0.2.1"], "`--host` must be an address of this machine, not `192.0.2.1`"),
        (&["--timeout-header", "0"], "0 is not in 1..="),
    ] {
        let stderr = stderr_of(&mut with(dir.path(), arguments), 2);
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
    let mut command = Command::new(embodied_r_tests::binary());
    command.args(["serve", "--model", "model", "--served-model-name", " "]);
    let stderr = stderr_of(command.current_dir(dir.path()), 2);
    assert!(stderr.contains("`--served-model-name` must be a name"), "{stderr}");
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    let dir = tiny();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut command = Command::new(embodied_r_tests::binary());
    command.current_dir(dir.path()).args(["serve", "--model", "model", "--port", &port]);
    let stderr = stderr_of(&mut command, 1);
    assert!(stderr.contains(&port) && stderr.contains("hint: choose another `--port`"), "{stderr}");
}

#[test]
fn an_api_key_that_no_header_can_carry_is_refused_at_start() {
    let dir = tiny();
    for (key, message) in [
        ("schlüssel", "`EMBODIED_R_API_KEY` has a character that no header can carry"),
        ("a\nb", "`EMBODIED_R_API_KEY` has a character that no header can carry"),
        (" ", "`EMBODIED_R_API_KEY` is blank; unset it to serve without a key"),
    ] {
        let stderr = stderr_of(client::command(dir.path()).env("EMBODIED_R_API_KEY", key), 2);
        assert!(stderr.contains(message), "{key:?}: {stderr}");
    }
    let server = Server::start_with(&[], Some("two words~"));
    assert_eq!(server.get("/v1/models").status, 200);
}

#[test]
fn a_context_that_exceeds_the_kv_cache_is_refused_or_shortened() {
    let dir = tiny();
    // 512 bytes per token: 7 pages of 64 tokens.
    let small = ["--kv-cache-gb", "0.00025"];
    let long = [&small[..], &["--max-model-len", "2000"]].concat();
    let stderr = stderr_of(&mut with(dir.path(), &long), 2);
    let message = "`--max-model-len` is 2000, but a KV cache of `--kv-cache-gb` 0.00025 holds";
    assert!(stderr.contains(message), "{stderr}");
    let server = Server::launch(dir, &small, None);
    let length = &server.get("/v1/models").json()["data"][0]["max_model_len"];
    assert!(length.as_u64().unwrap() < 2000, "{length}");
    let fits = chat("a lamp", json!({"ignore_eos": true}));
    let answer = server.post(CHAT, &fits);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["usage"]["total_tokens"], *length);
}

#[test]
fn a_model_that_is_a_file_is_not_called_missing() {
    let dir = tiny();
    fs::write(dir.path().join("weights.bin"), "x").unwrap();
    let mut command = Command::new(embodied_r_tests::binary());
    command.current_dir(dir.path()).args(["serve", "--port", "0", "--model", "weights.bin"]);
    let stderr = stderr_of(&mut command, 1);
    assert!(stderr.contains("`weights.bin` is a file, but not in GGUF format"), "{stderr}");
}

#[test]
fn an_undecodable_path_gets_a_json_error() {
    let server = Server::start(&[]);
    for path in ["/v1/models/%ff", "/v1/models/a%C3%28"] {
        refused(&server.get(path), 400, Value::Null, "invalid_url");
    }
}

#[test]
fn cached_prefixes_count_as_cached_and_not_as_in_use() {
    let server = Server::start(&[]);
    let body = chat(&"a lamp is left of the chair ".repeat(20), json!({"max_tokens": 2}));
    assert_eq!(server.metric("prefix_cache_tokens"), 0.0);
    let prompt = server.post(CHAT, &body).json()["usage"]["prompt_tokens"].as_f64().unwrap();
    server.wait_for("kv_cache_tokens", 0.0);
    let full = (prompt / 64.0).floor() * 64.0;
    assert_eq!(server.metric("prefix_cache_tokens"), full);
    assert_eq!(server.metric("prompt_tokens_total"), prompt);
    server.post(CHAT, &body);
    server.wait_for("kv_cache_tokens", 0.0);
    assert_eq!(server.metric("cached_prompt_tokens_total"), full);
    assert_eq!(server.metric("prompt_tokens_total"), prompt + prompt - full);
}

#[test]
fn a_local_image_that_is_too_large_is_not_called_missing() {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    fs::create_dir(dir.path().join("open")).unwrap();
    let file = fs::File::create(dir.path().join("open/large.png")).unwrap();
    file.set_len((32 << 20) + 1).unwrap();
    let url = format!("file://{}/open/large.png", dir.path().canonicalize().unwrap().display());
    let server = Server::launch(dir, &["--allowed-local-media-path", "open"], None);
    let part = json!({"type": "image_url", "image_url": {"url": url}});
    let mut body = chat("", json!({}));
    body["messages"][0]["content"] = json!([part]);
    let error = server.post(CHAT, &body).json()["error"].clone();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("is too large: it has more than 33554432 bytes"), "{error}");
}
