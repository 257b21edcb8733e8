//! GGUF files by name.

use super::*;

const FILES: [&str; 4] = ["README.md", "vl-Q4_K_M.gguf", "vl-Q8_0.gguf", "mmproj-vl-f16.gguf"];

#[test]
fn a_file_and_a_quantization_are_downloaded_alone_and_found_offline() {
    for name in ["org/model/vl-Q4_K_M.gguf", "org/model:Q4_K_M", "org/model:q4_k_m"] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::of(&FILES);
        let file = find(cache.path(), Some(&server), name).unwrap();
        assert_eq!(file.file_name().unwrap(), "vl-Q4_K_M.gguf");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "of vl-Q4_K_M.gguf");
        assert_eq!(names_in(file.parent().unwrap()), ["vl-Q4_K_M.gguf"]);
        assert_eq!(find(cache.path(), None, name).unwrap(), file, "offline");
        let requests = server.requests().len();
        assert_eq!(find(cache.path(), Some(&server), name).unwrap(), file);
        assert_eq!(server.requests().len(), requests, "a cached file is not looked up");
    }
}

#[test]
fn the_vision_encoder_is_added_when_a_command_needs_it() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&FILES);
    let decoder = find(cache.path(), Some(&server), "org/model:Q4_K_M").unwrap();
    let online = hub(cache.path(), Some(&server));
    let found = online.resolve("org/model:Q4_K_M", None, Needs::VisionEncoder).unwrap();
    assert_eq!(found, decoder);
    let names = names_in(found.parent().unwrap());
    assert_eq!(names, ["mmproj-vl-f16.gguf", "vl-Q4_K_M.gguf"]);
    assert_eq!(server.ranges("vl-Q4_K_M.gguf").len(), 1);
    let offline = hub(cache.path(), None);
    offline.resolve("org/model:Q4_K_M", None, Needs::VisionEncoder).unwrap();
}

#[test]
fn a_missing_file_lists_what_there_is() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&FILES);
    let message = find(cache.path(), Some(&server), "org/model:Q2_K").unwrap_err().to_string();
    assert!(message.contains("`org/model:Q2_K` (main)"), "{message}");
    assert!(message.ends_with("it has vl-Q4_K_M.gguf, vl-Q8_0.gguf"), "{message}");
    let message = find(cache.path(), Some(&server), "org/model").unwrap_err().to_string();
    assert!(message.contains("several GGUF files"), "{message}");
}

#[test]
fn a_file_in_a_folder_keeps_its_path() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["q8/x-Q8_0.gguf"]);
    let file = find(cache.path(), Some(&server), "org/model/q8/x-Q8_0.gguf").unwrap();
    assert!(file.ends_with("snapshots/c0ffee/q8/x-Q8_0.gguf"));
    assert!(file.is_file());
    assert_eq!(find(cache.path(), None, "org/model:Q8_0").unwrap(), file);
}
