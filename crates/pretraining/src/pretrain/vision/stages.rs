//! What an unfinished run has done: its command, given again, goes on from there.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use embodied_r_files::write_atomic;
use serde::{Deserialize, Serialize};

/// Directory in the output directory with the model before it learns text about frames.
const BEFORE_FRAMES: &str = "before-frames";

/// File in that directory with the stages that have been done.
const DONE: &str = "stages.json";

/// The stages that an unfinished run has done.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Done {
    /// The command of the run.
    command: String,
    /// The record of the runs that made the decoder.
    pub(super) runs: Vec<serde_json::Value>,
    /// Part of the objects that the encoder finds, after the stage of detection.
    pub(super) found: Option<f64>,
    /// Seconds of the stages.
    seconds: u64,
}

/// The stages of a run and the directory of its model between them.
pub(super) struct Stages {
    /// The directory of the model before it learns text about frames.
    pub(super) model: PathBuf,
    pub(super) done: Done,
    /// Whether an earlier call has done them.
    pub(super) goes_on: bool,
    began: Instant,
    /// Seconds of the stages that earlier calls have done.
    earlier: u64,
}

impl Stages {
    /// Goes on with the run of `command` in `out`, or begins it: `start` writes the model before detection into a directory, and
    /// returns the record of the runs that made its decoder.
    ///
    /// # Errors
    /// `out` has an unfinished run of another command.
    pub(super) fn of(
        command: String,
        out: &Path,
        start: impl FnOnce(&Path) -> anyhow::Result<Vec<serde_json::Value>>,
    ) -> anyhow::Result<Self> {
        let (model, began) = (out.join(BEFORE_FRAMES), Instant::now());
        let file = model.join(DONE);
        if !file.is_file() {
            let runs = start(&model)?;
            let done = Done { command, runs, found: None, seconds: 0 };
            let stages = Self { model, done, goes_on: false, began, earlier: 0 };
            return stages.saved();
        }
        let text = std::fs::read(&file).map_err(embodied_r_files::Error::io("read", &*file))?;
        let done: Done = serde_json::from_slice(&text)
            .with_context(|| format!("cannot parse `{}`", file.display()))?;
        if done.command != command {
            bail!(
                "`{}` has an unfinished run of another command: `{}`. Remove that directory, or choose another `--output`",
                model.display(),
                done.command
            );
        }
        let earlier = done.seconds;
        Ok(Self { model, done, goes_on: true, began, earlier })
    }

    /// Records that the encoder finds this part of the objects.
    pub(super) fn detected(mut self, found: f64) -> anyhow::Result<Self> {
        self.done.found = Some(found);
        self.saved()
    }

    fn saved(mut self) -> anyhow::Result<Self> {
        self.done.seconds = self.seconds();
        write_atomic(&self.model.join(DONE), &serde_json::to_vec_pretty(&self.done)?)?;
        Ok(self)
    }

    /// Seconds of the run so far.
    pub(super) fn seconds(&self) -> u64 {
        self.earlier + self.began.elapsed().as_secs()
    }

    /// Removes the model between the stages.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let removed = std::fs::remove_dir_all(&self.model);
        Ok(removed.map_err(embodied_r_files::Error::io("remove", self.model))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(model: &Path) -> anyhow::Result<Vec<serde_json::Value>> {
        std::fs::create_dir_all(model)?;
        Ok(vec![serde_json::json!({"text_steps": 3})])
    }

    fn restarted(_: &Path) -> anyhow::Result<Vec<serde_json::Value>> {
        bail!("started again")
    }

    #[test]
    fn the_same_command_goes_on_and_another_is_an_error() {
        let out = tempfile::tempdir().unwrap();
        let stages = Stages::of("a".to_owned(), out.path(), start).unwrap();
        assert!(stages.done.found.is_none() && !stages.goes_on);
        let done = stages.detected(0.75).unwrap().done;
        let again = Stages::of("a".to_owned(), out.path(), restarted).unwrap();
        assert!(again.goes_on);
        assert_eq!(again.done, done);
        let other = Stages::of("b".to_owned(), out.path(), restarted).err().unwrap().to_string();
        assert!(other.contains("another command: `a`") && other.contains("--output"), "{other}");

        again.finish().unwrap();
        assert!(Stages::of("b".to_owned(), out.path(), restarted).is_err());
        assert!(Stages::of("b".to_owned(), out.path(), start).is_ok());
    }
}
