//! The runs of `--full`: what other uses of the same data reach, and controls of the reinforcement.

use std::path::Path;

use anyhow::Context as _;

use super::row::Row;
use super::steps::words;
use super::world::World;
use super::{Quickstart, controls, scores};

/// Batch size of SFT, as in its settings.
const SFT_BATCH_SIZE: usize = 16;

/// Epochs of SFT on many examples: answers without reasoning, and accepted samples.
const BASELINE_EPOCHS: [u64; 2] = [1, 3];

/// Learning rates of SFT on accepted samples: a fifth of the cold start's, and the same.
const REJECTION_SAMPLING_RATES: [&str; 2] = ["1e-3", "5e-3"];

/// The names of the rows.
pub(super) const SFT: &str = "sft";
pub(super) const RANDOM_REWARDS: &str = "random rewards";

/// A model of SFT.
struct Tuned {
    model: String,
    /// On validation, per cent.
    accuracy: f64,
}

/// The best of `tuned` at `start` epochs and at its doubles as long as the accuracy rises, or at its halves if twice is no
/// better.
fn best_length(
    start: u64,
    mut tuned: impl FnMut(u64) -> anyhow::Result<Tuned>,
) -> anyhow::Result<Tuned> {
    let mut best = tuned(start)?;
    let directions: [fn(u64) -> u64; 2] = [|epochs| 2 * epochs, |epochs| epochs / 2];
    for next in directions {
        let mut epochs = next(start);
        while epochs > 0 {
            let found = tuned(epochs)?;
            if found.accuracy <= best.accuracy {
                break;
            }
            best = found;
            epochs = next(epochs);
        }
        if epochs != next(start) {
            break;
        }
    }
    Ok(best)
}

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

    /// SFT of the base on the worked examples of the cold start, as long as is best on validation: the model. From the
    /// cold start's epochs on they are doubled as long as the validation accuracy rises; if it never does, they are halved.
    pub(super) fn sft_of_any_length(&self) -> anyhow::Result<String> {
        let cold_start = self.cold_start_epochs()?;
        let best = best_length(cold_start, |epochs| match epochs == cold_start {
            true => self.validated("sft/final", epochs),
            false => self.tuned(SFT, "base", "conversations.jsonl", epochs, &self.args.sft_set),
        })?;
        Ok(best.model)
    }

    /// Epochs of the cold start, from its settings.
    fn cold_start_epochs(&self) -> anyhow::Result<u64> {
        let settings = controls::settings(&self.path("sft"))?;
        let epochs = settings.get("num_train_epochs").and_then(toml::Value::as_integer);
        let epochs = epochs.context("the cold start's settings have no `num_train_epochs`")?;
        Ok(u64::try_from(epochs)?)
    }

    /// GRPO on random answers: the model at the end, as the best checkpoint may be the start.
    pub(super) fn random_rewards(&self) -> anyhow::Result<&'static str> {
        let random = self.in_data("train_random.json");
        controls::with_random_answers(&self.split("train"), &random, self.args.seed)?;
        self.train("random-rewards", &random, &self.split("val"))?;
        Ok("random-rewards/final")
    }

    /// The model with the best validation accuracy among SFT runs of `epochs`, which increase until it no longer rises.
    fn best_sft(
        &self,
        name: &str,
        model: &str,
        data: &str,
        epochs: impl IntoIterator<Item = u64>,
        sets: &[String],
    ) -> anyhow::Result<Tuned> {
        let mut best: Option<Tuned> = None;
        for epochs in epochs {
            let tuned = self.tuned(name, model, data, epochs, sets)?;
            if best.as_ref().is_some_and(|best| tuned.accuracy <= best.accuracy) {
                break;
            }
            best = Some(tuned);
        }
        best.context("no SFT run")
    }

    /// SFT of `model` on the conversations in `data`, with its validation accuracy.
    fn tuned(
        &self,
        name: &str,
        model: &str,
        data: &str,
        epochs: u64,
        sets: &[String],
    ) -> anyhow::Result<Tuned> {
        let run = format!("{name}-{epochs}");
        let sets = [sets, &[format!("num_train_epochs={epochs}")]].concat();
        self.sft(&run, model, (data, None), &sets)?;
        self.validated(&format!("{run}/final"), epochs)
    }

    /// A model of SFT with its validation accuracy.
    fn validated(&self, model: &str, epochs: u64) -> anyhow::Result<Tuned> {
        let answers = self.path(&format!("answers/{}-val.json", model.replace("/final", "")));
        self.answer(model, &self.split("val"), &answers)?;
        let accuracy = scores::accuracy(&answers)?;
        self.steps.say(&format!("{epochs} epochs: validation accuracy {accuracy:.1} %"))?;
        Ok(Tuned { model: model.to_owned(), accuracy })
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
        Ok((tuned.model, controls::lines(&data)?))
    }

    /// SFT of the cold start on its own correct samples, out of as many as GRPO draws, with the rate and the epochs that are
    /// best on validation: the model, and the number of accepted samples. Without any the model is the cold start.
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
        let batch_size = format!("train_batch_size={}", accepted.min(SFT_BATCH_SIZE));
        let model = self.whole_cold_start()?;
        let mut best: Option<Tuned> = None;
        for rate in REJECTION_SAMPLING_RATES {
            let name = format!("rejection-sampling-{rate}");
            let sets = [batch_size.clone(), format!("learning_rate={rate}")];
            let tuned = self.best_sft(&name, model, "accepted.jsonl", BASELINE_EPOCHS, &sets)?;
            if best.as_ref().is_none_or(|best| tuned.accuracy > best.accuracy) {
                best = Some(tuned);
            }
        }
        Ok((best.context("no SFT run")?.model, accepted))
    }

    /// The cold start as a model that SFT can start from: an adapter is merged into the base.
    fn whole_cold_start(&self) -> anyhow::Result<&'static str> {
        let cold_start = self.path("sft/final");
        if !cold_start.join("adapter_config.json").exists() {
            return Ok("sft/final");
        }
        let merged = self.path("sft-merged");
        if !merged.exists() {
            self.steps.command(
                &["merge"],
                [
                    ("--model", self.path("base").into()),
                    ("--adapter", cold_start.into()),
                    ("--output", merged.into()),
                    ("--dtype", "float32".into()),
                ],
            )?;
        }
        Ok("sft-merged")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The best length from 8 epochs on, and those that were tried, for accuracies by epochs.
    fn search(accuracy: impl Fn(u64) -> f64) -> (String, Vec<u64>) {
        let mut tried = Vec::new();
        let best = best_length(8, |epochs| {
            tried.push(epochs);
            Ok(Tuned { model: epochs.to_string(), accuracy: accuracy(epochs) })
        });
        (best.unwrap().model, tried)
    }

    #[test]
    fn epochs_are_doubled_while_the_accuracy_rises_or_else_halved() {
        let near = |best: f64| move |epochs: u64| -(epochs as f64 - best).abs();
        assert_eq!(search(near(32.0)), ("32".to_owned(), vec![8, 16, 32, 64]));
        assert_eq!(search(near(8.0)), ("8".to_owned(), vec![8, 16, 4]));
        assert_eq!(search(near(2.0)), ("2".to_owned(), vec![8, 16, 4, 2, 1]));
        assert_eq!(search(near(0.0)), ("1".to_owned(), vec![8, 16, 4, 2, 1]));
    }

    #[test]
    fn batch_size_and_learning_rate_are_those_of_the_settings() {
        let settings: toml::Table = toml::from_str(World::Captions.configs().sft).unwrap();
        assert_eq!(settings["train_batch_size"].as_integer(), Some(SFT_BATCH_SIZE as i64));
        let rate: f64 = REJECTION_SAMPLING_RATES[1].parse().unwrap();
        assert_eq!(settings["learning_rate"].as_float(), Some(rate));
    }
}
