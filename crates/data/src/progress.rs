//! Progress reporting of libraries; the binary renders it.

/// Receives the progress of long-running work, possibly from several threads.
pub trait Progress: Sync {
    /// A phase starts; `total` is its number of units, if known.
    fn start(&self, phase: &str, total: Option<u64>);
    /// `units` more are done.
    fn advance(&self, units: u64);
    /// A short status line, such as current metrics.
    fn message(&self, text: &str);
    /// A warning that stays on screen.
    fn warn(&self, text: &str);
    /// The phase is finished.
    fn finish(&self);
}

/// Discards all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}
