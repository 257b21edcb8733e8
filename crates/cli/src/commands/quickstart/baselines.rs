//! The runs of `--full`: what other uses of the same data reach, and controls of the reinforcement.

use std::path::Path;

use super::row::Row;
use super::steps::words;
use super::world::World;
use super::{Quickstart, controls, scores};

/// Batch size of SFT, as in its settings.
const SFT_BATCH_SIZE: usize = 16;

/// Epochs of SFT on many examples: answers without reasoning, and accepted samples.
const BASELINE_EPOCHS: [u64; 2] = [1, 3];

/// The names of the rows.
pub(super) const SFT: &str = "sft";
pub(super) const RANDOM_REWARDS: &str = "random rewards";

impl Quickstart<'_> {
    /// The rows of `--full`: what other uses of the same data reach, and controls of the reinforcement.
    pub(super) fn baseline_rows(&self) -> anyhow::Result<Vec<Row>> {
        let (test, train, supervised) = (self.test(), self.split("train"), self.supervised());
        let sft = self.row(SFT, &self.sft_of_any_length()?, &test, supervised)?;
        let random = self.row(RANDOM_REWARDS, self.random_rewards()?, &test, supervised)?;
        if self.world == World::Frames {
            return Ok(vec![sft, random]);
        }
        let (answers, answered) = self.sft_on_answers()?;
        let (tuned, accepted) = self.rejection_sampling(&train)?;
        let shuffled = self.in_data("train_shuffled.json");
        controls::with_other_captions(&train, &shuffled, self.args.seed)?;
        self.train("shuffled-in-training", &shuffled, &self.split("val"))?;
        Ok(vec![
            sft,
            self.row("sft answers", &answers, &test, answered)?,
            self.row("rejection sampling", &tuned, &test, supervised + accepted)?,
            random,
            self.row("shuffled in training", "shuffled-in-training/final", &test, supervised)?,
        ])
    }

    /// SFT of the base on the worked examples of the cold start, as long as is best on validation: the model.
    pub(super) fn sft_of_any_length(&self) -> anyhow::Result<String> {
        let shortest = self.world.shortest_sft();
        let lengths = std::iter::successors(Some(shortest), |epochs| Some(2 * epochs));
        self.best_sft(SFT, "base", "conversations.jsonl", lengths, &self.args.sft_set)
    }

    /// GRPO on random answers: the model at the end, as the best checkpoint may be the start.
    pub(super) fn random_rewards(&self) -> anyhow::Result<&'static str> {
        let random = self.in_data("train_random.json");
        controls::with_random_answers(&self.split("train"), &random, self.args.seed)?;
        self.train("random-rewards", &random, &self.split("val"))?;
        Ok("random-rewards/final")
    }

    /// The model with the best validation accuracy among SFT runs of `epochs`, which increase until it no longer rises.
    pub(super) fn best_sft(
        &self,
        name: &str,
        model: &str,
        data: &str,
        epochs: impl IntoIterator<Item = u64>,
        sets: &[String],
    ) -> anyhow::Result<String> {
        let mut best = (f64::NEG_INFINITY, String::new());
        for epochs in epochs {
            let run = format!("{name}-{epochs}");
            let sets = [sets, &[format!("num_train_epochs={epochs}")]].concat();
            self.sft(&run, model, data, &sets)?;
            let tuned = format!("{run}/final");
            let answers = self.path(&format!("answers/{run}-val.json"));
            self.answer(&tuned, &self.split("val"), &answers)?;
            let accuracy = scores::accuracy(&answers)?;
            self.steps.say(&format!("{epochs} epochs: validation accuracy {accuracy:.1} %"))?;
            if accuracy <= best.0 {
                break;
            }
            best = (accuracy, tuned);
        }
        Ok(best.1)
    }

    /// SFT of the base on the training questions' answers without reasoning: the model, and their number.
    fn sft_on_answers(&self) -> anyhow::Result<(String, usize)> {
        let data = self.path("answers-only.jsonl");
        self.steps.run({
            let mut words =
                words(["sim", "conversations", "--answers-only", "--judge-examples", "0"]);
            words.extend(["--questions".into(), usize::MAX.to_string().into(), "--data".into()]);
            words.push(self.split("train").into());
            words.extend(["--seed".into(), self.seed(), "--output".into(), data.clone().into()]);
            words
        })?;
        let tuned =
            self.best_sft("sft-answers", "base", "answers-only.jsonl", BASELINE_EPOCHS, &[])?;
        Ok((tuned, controls::lines(&data)?))
    }

    /// SFT of the cold start on its own correct samples, out of as many as GRPO draws: the model, and the number of
    /// accepted samples. Without any the model is the cold start.
    fn rejection_sampling(&self, train: &Path) -> anyhow::Result<(String, usize)> {
        let samples = controls::samples_per_question(&self.path("train"), train)?;
        self.sample("sft/final", train, samples, &self.path("rejection-sampling-samples"))?;
        let accepted = controls::accept(
            &self.path("rejection-sampling-samples/samples.jsonl"),
            &self.path("accepted.jsonl"),
        )?;
        if accepted == 0 {
            return Ok(("sft/final".to_owned(), 0));
        }
        let few = accepted < SFT_BATCH_SIZE;
        let sets = few.then(|| format!("train_batch_size={accepted}"));
        let sets: Vec<String> = sets.into_iter().collect();
        let (name, data) = ("rejection-sampling", "accepted.jsonl");
        let tuned = self.best_sft(name, "sft/final", data, BASELINE_EPOCHS, &sets)?;
        Ok((tuned, accepted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_size_is_that_of_the_settings() {
        let settings: toml::Table = toml::from_str(World::Captions.configs().sft).unwrap();
        assert_eq!(settings["train_batch_size"].as_integer(), Some(SFT_BATCH_SIZE as i64));
    }
}
