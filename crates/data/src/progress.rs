//! How libraries report progress; the binary decides how it looks.

/// A listener to the progress of long work. Calls may come from several threads.
pub trait Progress: Sync {
    /// A phase begins; `total` is its number of units where it is known.
    fn start(&self, phase: &str, total: Option<u64>);
    /// `units` more are done.
    fn advance(&self, units: u64);
    /// A short line about the present state, such as current figures.
    fn message(&self, text: &str);
    /// Something the user should know, kept on the screen; the work goes on.
    fn warn(&self, text: &str);
    /// The phase is over.
    fn finish(&self);
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}
