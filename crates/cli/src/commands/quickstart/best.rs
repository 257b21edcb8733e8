//! The best checkpoint of a GRPO run.

use anyhow::Context as _;
use embodied_r_grpo::checkpoint::{Checkpoints, name};

use super::Quickstart;

impl Quickstart<'_> {
    /// The model of `run` with the best evaluation: a checkpoint, or `start`, from which the run started.
    pub(super) fn best_checkpoint(&self, run: &str, start: &str) -> anyhow::Result<String> {
        let path = self.path(run);
        let last = Checkpoints::new(&path, 1).last()?;
        let best = last.and_then(|checkpoint| checkpoint.state.best);
        let best = best.with_context(|| format!("`{}` has no evaluations", path.display()))?;
        let (step, percent) = (best.step, 100.0 * best.value);
        self.steps.say(&format!(
            "\nbest checkpoint of `{run}`: step {step}, {percent:.1} % on validation"
        ))?;
        Ok(match step {
            0 => start.to_owned(),
            step => format!("{run}/{}", name(step)),
        })
    }
}
