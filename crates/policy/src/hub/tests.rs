//! Downloads from a local server that fails on demand.

mod access;
mod adapters;
mod datasets;
mod faults;
mod folders;
mod gguf;
mod server;

use std::path::Path;
use std::sync::Mutex;

use super::*;
use server::{Fault, LIST, Server};

/// Records the reports of a download.
#[derive(Default)]
struct RecordedProgress(Mutex<Vec<String>>);

impl DownloadProgress for RecordedProgress {
    fn start(&self, file: &str, bytes: u64, present: u64) {
        self.0.lock().unwrap().push(format!("start {file} {present}/{bytes}"));
    }

    fn warn(&self, text: &str) {
        self.0.lock().unwrap().push(format!("warn {text}"));
    }
}

/// The hub at `server`, or an offline one.
fn hub(cache: &Path, server: Option<&Server>) -> Hub {
    let environment = Environment {
        endpoint: server.map_or("http://127.0.0.1:9".to_owned(), |server| server.hub.url()),
        cache: cache.to_owned(),
        token: Some("secret".to_owned()),
        offline: server.is_none(),
    };
    Hub { environment, progress: Arc::new(()), first_wait: Duration::from_millis(1) }
}

fn find(cache: &Path, server: Option<&Server>, model: &str) -> Result<PathBuf> {
    hub(cache, server).resolve(model, None, Needs::Decoder)
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Bytes that repeat nowhere, so that a part in the wrong place is found.
fn bytes(count: u32) -> Vec<u8> {
    (0..count).flat_map(|index| index.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}
