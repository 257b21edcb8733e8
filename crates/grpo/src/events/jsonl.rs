//! Events as JSON lines.

use std::path::Path;

use embodied_r_files::Journal;

use super::{Event, Sink};
use crate::error::Result;

/// Name of the file in a run's folder.
pub const EVENTS_FILE: &str = "events.jsonl";

/// Appends events to a file, one JSON object per line.
#[derive(Debug)]
pub struct Jsonl(Journal);

impl Jsonl {
    /// Opens `path` and truncates it to `keep` bytes.
    ///
    /// A resumed run passes the length at its checkpoint, so that later events are not duplicated.
    ///
    /// # Errors
    /// The file cannot be opened or truncated.
    pub fn open(path: &Path, keep: u64) -> Result<Self> {
        Ok(Self(Journal::cut_to(path, keep)?))
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.0.length()
    }

    /// Flushes what was written to disk.
    ///
    /// # Errors
    /// The file cannot be flushed.
    pub fn flush(&self) -> Result<()> {
        Ok(self.0.flush()?)
    }
}

impl Sink for Jsonl {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.append(event)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::RankShares;
    use super::*;

    fn lines(path: &Path) -> Vec<Event> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn step(step: u64) -> Event {
        let metrics = [("reward".to_owned(), 0.5), ("kl".to_owned(), 0.25)].into_iter().collect();
        Event::Step { step, epoch: 0.5, time_s: 1.0, ranks: RankShares::default(), metrics }
    }

    #[test]
    fn events_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EVENTS_FILE);
        let mut sink = Jsonl::open(&path, 0).unwrap();
        let events = [Event::Start { steps: 2, done: 0 }, step(1)];
        for event in &events {
            sink.event(event).unwrap();
        }
        assert_eq!(lines(&path), events);
    }

    #[test]
    fn a_steps_metrics_are_flattened_into_its_event() {
        let value = serde_json::to_value(step(3)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"event": "step", "step": 3, "epoch": 0.5, "time_s": 1.0, "reward":
                0.5, "kl": 0.25})
        );
    }

    #[test]
    fn events_after_the_checkpoint_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EVENTS_FILE);
        let mut sink = Jsonl::open(&path, 0).unwrap();
        sink.event(&step(1)).unwrap();
        let at_checkpoint = sink.length();
        sink.event(&step(2)).unwrap();
        let mut resumed = Jsonl::open(&path, at_checkpoint).unwrap();
        resumed.event(&step(2)).unwrap();
        assert_eq!(lines(&path), [step(1), step(2)]);
    }
}
