//! The runs of `--robot --full`: SFT on the same worked examples, and controls of the reinforcement.

use super::super::{Quickstart, controls};
use super::KindRow;

/// Epochs of the shortest SFT run, those of the cold start; they double as long as the validation accuracy rises.
const SFT_EPOCHS: u64 = 32;

/// The names of the rows.
pub(super) const SFT: &str = "sft";
pub(super) const GREY_IN_TRAINING: &str = "trained on grey images";
pub(super) const RANDOM_REWARDS: &str = "random rewards";

impl Quickstart<'_> {
    /// The rows of `--full`. GRPO on grey images is evaluated with its best checkpoint, as the trained model is; that with
    /// random rewards at its end, as its best checkpoint may be its start.
    pub(super) fn robot_baseline_rows(&self) -> anyhow::Result<Vec<KindRow>> {
        let (test, train) = (self.split("test"), self.split("train"));
        let lengths = std::iter::successors(Some(SFT_EPOCHS), |epochs| Some(2 * epochs));
        let sft =
            self.best_sft("sft", "base", "conversations.jsonl", lengths, &self.args.sft_set)?;
        let mut rows = self.rows_by_kind(SFT, &sft, &test)?;

        let [grey_train, grey_val, grey_test] = ["train", "val", "test"].map(|it| self.grey(it));
        self.train("grey-in-training", &grey_train?, &grey_val?)?;
        let grey = self.best_checkpoint("grey-in-training", "sft/final")?;
        rows.extend(self.rows_by_kind(GREY_IN_TRAINING, &grey, &grey_test?)?);

        let random = self.in_data("train_random.json");
        controls::with_random_answers(&train, &random, self.args.seed)?;
        self.train("random-rewards", &random, &self.split("val"))?;
        rows.extend(self.rows_by_kind(RANDOM_REWARDS, "random-rewards/final", &test)?);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::world::World;
    use super::*;

    #[test]
    fn the_shortest_sft_has_the_epochs_of_the_cold_start() {
        let settings: toml::Table = toml::from_str(World::Robot.configs().sft).unwrap();
        assert_eq!(settings["num_train_epochs"].as_integer(), Some(SFT_EPOCHS as i64));
    }
}
