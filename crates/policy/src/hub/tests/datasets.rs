//! Data sets as folders.

use super::*;

const INFO: &str = "meta/info.json";

fn server() -> Server {
    let files = [
        "README.md",
        "meta/info.json",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "videos/front/chunk-000/file-000.mp4",
        "videos/wrist/chunk-000/file-000.mp4",
    ];
    let names = files.map(|file| format!("datasets/org/data/{file}"));
    Server::new(&names.each_ref().map(|name| (name.as_str(), name.clone().into_bytes())))
}

fn resolve(cache: &Path, server: Option<&Server>, name: &str) -> Result<PathBuf> {
    hub(cache, server).resolve_dataset(name, None, INFO, |path| -> Result<Vec<String>> {
        assert_eq!(std::fs::read_to_string(path).unwrap(), "datasets/org/data/meta/info.json");
        let patterns =
            ["meta/episodes/chunk-*/*", "data/chunk-*/file-*.parquet", "videos/front/*/*"];
        Ok(patterns.map(str::to_owned).to_vec())
    })
}

#[test]
fn the_files_that_the_metadata_names_are_downloaded_and_found_offline() {
    let (cache, server) = (tempfile::tempdir().unwrap(), server());
    let dir = resolve(cache.path(), Some(&server), "org/data").unwrap();
    assert!(dir.starts_with(cache.path().join("datasets--org--data")), "{}", dir.display());
    assert_eq!(names_in(&dir), ["data", "meta", "videos"]);
    assert_eq!(names_in(&dir.join("data/chunk-000")), ["file-000.parquet", "file-001.parquet"]);
    assert_eq!(names_in(&dir.join("videos")), ["front"]);
    assert_eq!(resolve(cache.path(), None, "org/data").unwrap(), dir);
    // Nothing is downloaded twice.
    let sent =
        |server: &Server| server.requests().iter().filter(|it| it.path.contains("resolve")).count();
    let before = sent(&server);
    assert_eq!(resolve(cache.path(), Some(&server), "org/data").unwrap(), dir);
    assert_eq!(sent(&server), before);
}

#[test]
fn a_local_data_set_is_returned_unchanged_and_another_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(resolve(dir.path(), None, dir.path().to_str().unwrap()).unwrap(), dir.path());
    for name in ["data", "./missing", "org/data:Q4_K_M", "org/data/x.gguf"] {
        let error = resolve(dir.path(), None, name).unwrap_err();
        assert!(matches!(error, Error::NoSuchDataset { .. }), "{name}: {error}");
    }
    let error = resolve(dir.path(), None, "org/data").unwrap_err();
    assert!(matches!(error, Error::HubOffline { .. }), "{error}");
}

#[test]
fn a_repository_without_metadata_is_an_error() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(&[("datasets/org/data/README.md", b"text".to_vec())]);
    let error = resolve(cache.path(), Some(&server), "org/data").unwrap_err().to_string();
    assert!(error.contains("has no file `meta/info.json`"), "{error}");
    let server = Server::of(&["config.json"]);
    let error = resolve(cache.path(), Some(&server), "org/data").unwrap_err().to_string();
    assert!(error.contains("there is no such repository, or it is private"), "{error}");
}
