//! What a run has done so far, for the line of progress and its summary.

use std::collections::BTreeSet;
use std::time::Instant;

use embodied_r_data::Progress;

use super::with_causes;
use crate::captioner::Caption;
use crate::error::Error;

/// So many failures are shown as they happen; the log holds all of them.
const SHOWN_FAILURES: usize = 10;

/// Frames, tokens and failures so far.
pub(super) struct Tally {
    started: Instant,
    frames: usize,
    tokens: u64,
    failed: usize,
    shown: usize,
    unsupported: BTreeSet<String>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            frames: 0,
            tokens: 0,
            failed: 0,
            shown: 0,
            unsupported: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, captions: &[Caption]) {
        self.frames += captions.len();
        self.tokens += captions.iter().filter_map(|caption| caption.completion_tokens).sum::<u64>();
    }

    /// Tells of a failure, of a category that the annotations cannot support once.
    pub(super) fn failed(&mut self, id: &str, error: &Error, progress: &dyn Progress) {
        self.failed += 1;
        if let Error::UnsupportedCategory { category, reason, .. } = error {
            if self.unsupported.insert(category.clone()) {
                progress.warn(&format!("the annotations cannot support `{category}`: {reason}"));
            }
            return;
        }
        self.shown += 1;
        match self.shown {
            ..=SHOWN_FAILURES => {
                progress.warn(&format!("question `{id}` failed: {}", with_causes(error)));
            }
            n if n == SHOWN_FAILURES + 1 => progress.warn("further failures are in the log only"),
            _ => {}
        }
    }

    /// The figures on one line, with those that the captioner adds.
    pub(super) fn message(&self, status: Option<String>) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
        let mut text = format!("{} frames, {:.1}/s", self.frames, self.frames as f64 / seconds);
        if self.tokens > 0 {
            text.push_str(&format!(", {:.0} tokens/s", self.tokens as f64 / seconds));
        }
        if let Some(status) = status {
            text.push_str(&format!(", {status}"));
        }
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", self.failed));
        }
        text
    }
}
