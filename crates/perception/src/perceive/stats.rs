//! Statistics of a run, for the progress line and the summary.

use std::collections::BTreeSet;
use std::time::Instant;

use embodied_r_data::Progress;
use embodied_r_openai::with_causes;

use crate::captioner::Caption;
use crate::error::Error;

/// Failures that are shown; the log holds all of them.
const SHOWN_FAILURES: usize = 10;

/// Frames, tokens and failures so far.
pub(super) struct RunStats {
    started: Instant,
    /// Frames captioned by the model in this run.
    frames: usize,
    from_cache: usize,
    tokens: u64,
    failed: usize,
    shown: usize,
    unsupported: BTreeSet<String>,
}

impl RunStats {
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
        let (cached, generated): (Vec<_>, Vec<_>) =
            captions.iter().partition(|caption| caption.from_cache);
        self.from_cache += cached.len();
        self.frames += generated.len();
        self.tokens +=
            generated.iter().filter_map(|caption| caption.completion_tokens).sum::<u64>();
    }

    /// Reports a failure; an unsupported category is reported once.
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

    /// The progress line, with the captioner's status.
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
    fn cached_frames_do_not_count_towards_throughput() {
        let mut stats = RunStats::new();
        stats.add(&[caption(true), caption(true)]);
        let line = stats.message(None);
        assert!(line.starts_with("0 frames, 0.0/s, 2 from the cache"), "{line}");
        stats.add(&[caption(true), caption(false)]);
        let line = stats.message(None);
        assert!(line.starts_with("1 frames") && line.ends_with("3 from the cache"), "{line}");
        assert_eq!(stats.tokens, 5);
    }
}
