//! Connections that fail, and servers that send something else.

use super::*;

const FILE: &str = "model.safetensors";
const LARGE: &str = "org/model/model.safetensors";

/// A server with one large file, whose next downloads fail.
fn server(faults: &[Fault]) -> Server {
    let files = [("org/model/config.json", b"{}".to_vec()), (LARGE, bytes(5000))];
    Server::new(&files).fails(FILE, faults)
}

/// Downloads the model, which must be right in the end; returns the requested ranges and the reports.
fn downloads(cache: &Path, server: &Server) -> (Vec<Option<String>>, Vec<String>) {
    let reports = Arc::new(RecordedProgress::default());
    let hub = hub(cache, Some(server)).with_progress(Arc::clone(&reports) as _);
    let dir = hub.resolve("org/model", None, Needs::Decoder).unwrap();
    assert!(std::fs::read(dir.join(FILE)).unwrap() == bytes(5000));
    let reports = reports.0.lock().unwrap().clone();
    (server.ranges(FILE), reports)
}

fn fails(server: &Server) -> String {
    let cache = tempfile::tempdir().unwrap();
    let message = find(cache.path(), Some(server), "org/model").unwrap_err().to_string();
    assert!(!message.contains("secret") && !message.contains("signature"), "{message}");
    let snapshot = cache.path().join("models--org--model/snapshots/c0ffee").join(FILE);
    assert!(!snapshot.exists() && !snapshot.is_symlink());
    message
}

fn range(from: usize) -> Option<String> {
    Some(format!("bytes={from}-"))
}

fn blob(cache: &Path, suffix: &str) -> PathBuf {
    let name = server::hash(FILE, &bytes(5000)) + suffix;
    cache.join("models--org--model/blobs").join(name)
}

#[test]
fn a_dropped_connection_resumes_where_it_ended() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(&[Fault::Cut(7000), Fault::Cut(1000)]);
    let (ranges, reports) = downloads(cache.path(), &server);
    assert_eq!(ranges, [None, range(7000), range(8000)]);
    let warned = reports.iter().filter(|line| line.starts_with("warn")).count();
    assert_eq!(warned, 2, "{reports:?}");
}

#[test]
fn an_interrupted_program_resumes_from_the_partial_file() {
    let cache = tempfile::tempdir().unwrap();
    let partial = blob(cache.path(), ".incomplete");
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::fs::write(&partial, &bytes(5000)[..12_345]).unwrap();
    let (ranges, reports) = downloads(cache.path(), &server(&[]));
    assert_eq!(ranges, [range(12_345)]);
    assert!(reports.contains(&format!("start {FILE} 12345/20000")), "{reports:?}");
    assert!(!partial.exists() && blob(cache.path(), "").exists());
}

#[test]
fn a_complete_partial_file_is_verified_without_a_request() {
    let cache = tempfile::tempdir().unwrap();
    let partial = blob(cache.path(), ".incomplete");
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::fs::write(&partial, bytes(5000)).unwrap();
    assert_eq!(downloads(cache.path(), &server(&[])).0, []);
}

#[test]
fn a_partial_file_with_other_bytes_is_downloaded_again() {
    for wrong in [vec![7; 12_345], vec![7; 20_001]] {
        let cache = tempfile::tempdir().unwrap();
        let partial = blob(cache.path(), ".incomplete");
        std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
        std::fs::write(&partial, &wrong).unwrap();
        let (ranges, _) = downloads(cache.path(), &server(&[]));
        assert_eq!(ranges.last(), Some(&None), "{ranges:?}");
    }
}

#[test]
fn a_server_that_ignores_ranges_sends_the_file_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(&[Fault::Cut(7000), Fault::NoRange]);
    assert_eq!(downloads(cache.path(), &server).0, [None, range(7000)]);
}

#[test]
fn another_range_than_asked_for_is_not_appended() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(&[Fault::Cut(7000), Fault::OtherRange]);
    assert_eq!(downloads(cache.path(), &server).0, [None, range(7000), None]);
}

#[test]
fn damaged_and_longer_files_are_downloaded_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(&[Fault::Flip, Fault::Longer]);
    let (ranges, reports) = downloads(cache.path(), &server);
    assert_eq!(ranges, [None, None, None]);
    assert!(reports.iter().any(|line| line.contains("its hash is")), "{reports:?}");
    assert!(reports.iter().any(|line| line.contains("longer than 20000 bytes")), "{reports:?}");
}

#[test]
fn a_file_that_stays_damaged_is_an_error_with_both_hashes() {
    let server = server(&vec![Fault::Flip; 100]);
    let message = fails(&server);
    let expected = server::hash(FILE, &bytes(5000));
    assert!(message.contains(&format!("`{FILE}` is damaged: its hash is ")), "{message}");
    assert!(message.ends_with(&format!("not {expected}")), "{message}");
    assert_eq!(server.ranges(FILE).len(), 5);
}

#[test]
fn a_small_file_is_verified_by_gits_hash() {
    let server = server(&[]).fails("config.json", &vec![Fault::Flip; 100]);
    assert!(fails(&server).contains("`config.json` is damaged"));
}

#[test]
fn an_overloaded_server_is_asked_again() {
    let cache = tempfile::tempdir().unwrap();
    let busy = [Fault::Status(503, ""), Fault::Status(500, ""), Fault::Status(429, "")];
    let server = server(&busy).fails(LIST, &busy);
    assert_eq!(downloads(cache.path(), &server).0.len(), 4);
}

#[test]
fn an_expired_link_to_the_storage_is_asked_for_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(&[Fault::Cut(7000), Fault::Status(403, "")]);
    assert_eq!(downloads(cache.path(), &server).0, [None, range(7000), range(7000)]);
}

#[test]
fn a_server_that_always_fails_is_given_up() {
    let server = server(&[]).fails(LIST, &vec![Fault::Status(503, ""); 100]);
    let message = fails(&server);
    assert!(message.contains("answers 503 Service Unavailable"), "{message}");
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn connections_that_always_end_early_are_given_up() {
    // Each attempt fetches one byte more, which is no progress.
    let server = server(&vec![Fault::Cut(1); 100]);
    let message = fails(&server);
    assert!(message.contains("cannot download `org/model` (main)"), "{message}");
    assert_eq!(server.ranges(FILE).len(), 5);
}

#[test]
fn the_same_bytes_again_are_no_progress() {
    let files = [("org/model/config.json", b"{}".to_vec()), (LARGE, bytes(10 << 18))];
    let server = Server::new(&files).fails(FILE, &vec![Fault::CutNoRange(2 << 20); 100]);
    fails(&server);
    assert_eq!(server.ranges(FILE).len(), 5);
}

#[test]
fn a_large_file_may_be_interrupted_more_often_if_each_time_more_of_it_arrives() {
    let cache = tempfile::tempdir().unwrap();
    let large = bytes(10 << 18);
    let files = [("org/model/config.json", b"{}".to_vec()), (LARGE, large.clone())];
    let server = Server::new(&files).fails(FILE, &vec![Fault::Cut((1 << 20) + 1); 9]);
    let dir = find(cache.path(), Some(&server), "org/model").unwrap();
    assert!(std::fs::read(dir.join(FILE)).unwrap() == large);
    assert_eq!(server.ranges(FILE).len(), 10);
}

#[test]
fn a_server_that_cannot_be_reached_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path(), None);
    hub.environment.offline = false;
    let message = hub.resolve("org/model", None, Needs::Decoder).unwrap_err().to_string();
    assert!(message.contains("`127.0.0.1:9`") && message.contains("refused"), "{message}");
    assert!(message.contains("HF_ENDPOINT"), "{message}");
}

#[test]
fn an_etag_that_is_no_file_name_is_refused() {
    let server = server(&[]).with_etag("../../../escaped");
    assert!(fails(&server).contains("no usable header `etag`"));
}

#[test]
fn a_list_of_files_without_end_is_not_read() {
    let message = fails(&server(&[]).fails(LIST, &[Fault::Longer]));
    assert!(message.contains("longer than 16 MiB"), "{message}");
}
