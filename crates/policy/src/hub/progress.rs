//! The progress of downloads.

/// Receives the progress of downloads, which are one after the other.
pub trait DownloadProgress: Send + Sync {
    /// A download of `bytes` starts, of which `present` are there from an earlier one.
    fn start(&self, file: &str, bytes: u64, present: u64) {
        let _ = (file, bytes, present);
    }

    /// The bytes that are there.
    fn position(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Something that the user may want to know: a retry, or waiting for another process.
    fn warn(&self, text: &str) {
        let _ = text;
    }

    /// The download ends, complete or not.
    fn finish(&self) {}
}

/// Shows nothing.
impl DownloadProgress for () {}
