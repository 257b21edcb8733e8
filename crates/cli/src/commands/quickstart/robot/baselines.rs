//! The runs of `quickstart --robot --full`: controls of the reinforcement.

use super::super::Quickstart;
use super::super::baselines::RANDOM_REWARDS;
use super::KindRow;

/// The name of the row.
pub(super) const GREY_IN_TRAINING: &str = "trained on grey images";

impl Quickstart<'_> {
    /// The rows of `--full`. GRPO on grey images is evaluated with its best checkpoint, as the trained model is.
    pub(super) fn robot_baseline_rows(&self) -> anyhow::Result<Vec<KindRow>> {
        let [grey_train, grey_val, grey_test] = ["train", "val", "test"].map(|it| self.grey(it));
        self.train("grey-in-training", &grey_train?, &grey_val?)?;
        let grey = self.best_checkpoint("grey-in-training", "sft/final")?;
        let mut rows = self.rows_by_kind(GREY_IN_TRAINING, &grey, &grey_test?)?;
        let (random, test) = (self.random_rewards()?, self.split("test"));
        rows.extend(self.rows_by_kind(RANDOM_REWARDS, random, &test)?);
        Ok(rows)
    }
}
