//! Models as folders, and the layout of the cache.

use super::*;

#[test]
fn a_local_folder_is_returned_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let found = find(dir.path(), None, dir.path().to_str().unwrap()).unwrap();
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
        let error = find(dir.path(), None, model).unwrap_err();
        assert!(matches!(error, Error::NoSuchModel { .. }), "{model}: {error}");
    }
}

#[test]
fn only_needed_files_are_downloaded_and_found_offline_and_by_commit() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&[
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
    ]);
    let dir = find(cache.path(), Some(&server), "org/model").unwrap();
    let wanted = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names_in(&dir), wanted);
    assert_eq!(find(cache.path(), None, "org/model").unwrap(), dir);
    let by_commit = hub(cache.path(), None).resolve("org/model", Some("c0ffee"), Needs::Decoder);
    assert_eq!(by_commit.unwrap(), dir);
}

#[test]
fn the_cache_has_the_layout_of_huggingface_hub() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["config.json", "model.safetensors"]);
    let dir = find(cache.path(), Some(&server), "org/model").unwrap();
    let repo = cache.path().join("models--org--model");
    assert_eq!(dir, repo.join("snapshots/c0ffee"));
    assert_eq!(std::fs::read(repo.join("refs/main")).unwrap(), b"c0ffee");
    let blobs = ["config.json", "model.safetensors"].map(|file| {
        let blob = server::hash(file, format!("of {file}").as_bytes());
        let link = std::fs::read_link(dir.join(file)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(&blob));
        assert_eq!(std::fs::read_to_string(dir.join(file)).unwrap(), format!("of {file}"));
        let lock = cache.path().join(".locks/models--org--model").join(format!("{blob}.lock"));
        assert!(lock.is_file(), "{lock:?}");
        blob
    });
    let mut blobs = blobs.to_vec();
    blobs.sort();
    assert_eq!(names_in(&repo.join("blobs")), blobs);
}

#[test]
fn a_snapshot_without_a_shard_is_completed() {
    let cache = tempfile::tempdir().unwrap();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let map = serde_json::json!({ "weight_map": { "a": shards[0], "b": shards[1] } });
    let server = Server::new(&[
        ("org/model/config.json", b"{}".to_vec()),
        ("org/model/model.safetensors.index.json", map.to_string().into_bytes()),
        ("org/model/model-00001-of-00002.safetensors", b"a".to_vec()),
        ("org/model/model-00002-of-00002.safetensors", b"b".to_vec()),
    ]);
    let dir = find(cache.path(), Some(&server), "org/model").unwrap();
    let second = dir.join(shards[1]);
    // The link is kept.
    std::fs::remove_file(std::fs::canonicalize(&second).unwrap()).unwrap();
    let message = find(cache.path(), None, "org/model").unwrap_err().to_string();
    assert!(
        message.contains("`org/model` (main)") && message.contains("`HF_HUB_OFFLINE`"),
        "{message}"
    );
    assert_eq!(find(cache.path(), Some(&server), "org/model").unwrap(), dir);
    assert_eq!(std::fs::read(second).unwrap(), b"b");
    assert_eq!(server.ranges(shards[0]).len(), 1, "the other shard is not downloaded again");
}

#[test]
fn an_interrupted_first_download_leaves_no_model_behind() {
    let cache = tempfile::tempdir().unwrap();
    let gone = vec![Fault::Status(503, ""); 9];
    let server =
        Server::of(&["config.json", "model.safetensors"]).fails("model.safetensors", &gone);
    find(cache.path(), Some(&server), "org/model").unwrap_err();
    let error = find(cache.path(), None, "org/model").unwrap_err();
    assert!(matches!(error, Error::HubOffline { .. }), "{error}");
}

#[test]
fn it_works_inside_an_async_runtime() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["config.json", "model.safetensors"]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = runtime.block_on(async { find(cache.path(), Some(&server), "org/model") });
    assert!(dir.unwrap().join("model.safetensors").exists());
}

#[test]
fn two_processes_at_once_download_each_file_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(&[
        ("org/model/config.json", b"{}".to_vec()),
        ("org/model/model.safetensors", bytes(1 << 20)),
    ]);
    let dirs = std::thread::scope(|scope| {
        let find = || find(cache.path(), Some(&server), "org/model").unwrap();
        let both = [scope.spawn(find), scope.spawn(find)];
        both.map(|thread| thread.join().unwrap())
    });
    assert_eq!(dirs[0], dirs[1]);
    assert!(std::fs::read(dirs[0].join("model.safetensors")).unwrap() == bytes(1 << 20));
    assert_eq!(server.ranges("model.safetensors").len(), 1);
}
