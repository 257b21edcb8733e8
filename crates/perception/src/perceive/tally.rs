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
    /// Frames that were described in this run.
    frames: usize,
    from_cache: usize,
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
            from_cache: 0,
            tokens: 0,
            failed: 0,
            shown: 0,
            unsupported: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, captions: &[Caption]) {
        let (kept, made): (Vec<_>, Vec<_>) =
            captions.iter().partition(|caption| caption.from_cache);
        self.from_cache += kept.len();
        self.frames += made.len();
        self.tokens += made.iter().filter_map(|caption| caption.completion_tokens).sum::<u64>();
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
        if self.from_cache > 0 {
            text.push_str(&format!(", {} from the cache", self.from_cache));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn caption(from_cache: bool) -> Caption {
        Caption {
            index: 0,
            time_s: None,
            action: None,
            view: String::new(),
            prompt_tokens: Some(100),
            completion_tokens: Some(5),
            attempts: 1,
            elapsed_s: 1.0,
            fault: None,
            from_cache,
        }
    }

    #[test]
    fn frames_from_the_cache_do_not_count_for_speed() {
        let mut tally = Tally::new();
        tally.add(&[caption(true), caption(true)]);
        let told = tally.message(None);
        assert!(told.starts_with("0 frames, 0.0/s, 2 from the cache"), "{told}");
        tally.add(&[caption(true), caption(false)]);
        let told = tally.message(None);
        assert!(told.starts_with("1 frames") && told.ends_with("3 from the cache"), "{told}");
        assert_eq!(tally.tokens, 5);
    }
}
