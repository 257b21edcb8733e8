//! Scores by category and their means.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::protocol::Protocol;

/// The scores of a prediction file. All scores are from 0 to 100.
///
/// Its JSON is `{"protocol", "n", "overall", "micro", "macro", "by_category": {name: {"score",
/// "n"}}}`, without the coverage. With several samples per question it has also `{"pass_at": {k:
/// score}, "samples", "temperature"}` and `pass_at` by category.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The scoring protocol.
    pub protocol: Protocol,
    /// Number of scored questions.
    pub n: usize,
    /// The protocol's overall score: `micro` or `macro`.
    pub overall: f64,
    /// The mean over questions.
    pub micro: f64,
    /// The mean over the categories with questions.
    pub macro_: f64,
    /// The categories with questions, in the protocol's order.
    pub by_category: Vec<CategoryScore>,
    /// pass@k, if the report is over several samples per question. All other scores are then means over
    /// the samples.
    pub pass_at: Option<PassAt>,
    /// Missing, unparsable and skipped questions.
    pub coverage: Coverage,
}

/// One category's score.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoryScore {
    /// Its name, levels merged.
    pub name: String,
    /// Its score, from 0 to 100.
    pub score: f64,
    /// Number of its scored questions.
    pub n: usize,
    /// The mean of pass@k over its questions by k, from 0 to 100; empty without samples.
    pub pass_at: BTreeMap<usize, f64>,
}

/// pass@k over several samples per question.
#[derive(Debug, Clone, PartialEq)]
pub struct PassAt {
    /// The mean of pass@k over the scored questions by k, from 0 to 100, under every protocol.
    pub overall: BTreeMap<usize, f64>,
    /// Number of samples per question.
    pub samples: usize,
    /// Sampling temperature, if known.
    pub temperature: Option<f64>,
}

/// Counts of missing, unparsable and skipped questions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Questions in the protocol's categories whose record has no prediction.
    pub missing: usize,
    /// Questions in the protocol's categories that the model did not answer, or of which the predictions have no
    /// record; counted as wrong.
    pub unanswered: usize,
    /// Questions of the benchmark that are not scored because nothing is known of them; see
    /// [`Report::set_unrecorded`].
    pub unrecorded: usize,
    /// Completions (of all samples) without a closed `<answer>` tag; counted as wrong.
    pub without_answer_tag: usize,
    /// Skipped questions by category, for categories outside the protocol.
    pub unscored_categories: BTreeMap<String, usize>,
    /// Questions whose reference answer [`Protocol::Accuracy`] cannot score, skipped.
    pub unscored_answers: BTreeSet<String>,
    /// The protocol's categories without questions.
    pub empty_categories: Vec<&'static str>,
}

impl Report {
    /// The category called `name`, levels merged.
    pub fn category(&self, name: &str) -> Option<&CategoryScore> {
        self.by_category.iter().find(|category| category.name == name)
    }

    /// Whether fewer questions are scored than the benchmark has, so that the scores are not comparable with published
    /// ones.
    pub fn is_partial(&self) -> bool {
        self.protocol.benchmark_size().is_some_and(|size| self.n < size)
    }

    /// Records in the coverage how many of the benchmark's questions the predictions say nothing of. For predictions that
    /// are not scored against a question set, since only then may they be answers that are left out.
    pub fn set_unrecorded(&mut self) {
        let scored = self.n + self.coverage.missing * usize::from(self.protocol.skips_missing());
        let size = self.protocol.benchmark_size().unwrap_or(0);
        self.coverage.unrecorded = size.saturating_sub(scored);
    }

    /// The coverage as messages; empty if every question was scored.
    pub fn warnings(&self) -> Vec<String> {
        let Coverage {
            missing,
            unanswered,
            unrecorded,
            without_answer_tag,
            unscored_categories,
            unscored_answers,
            empty_categories,
        } = &self.coverage;
        let mut warnings = Vec::new();
        if *unrecorded > 0 {
            warnings.push(format!(
                "{unrecorded} of the benchmark's {} questions have no record and are not in the scores; with `--data \
                 FILE`, unanswered questions of that file count as wrong",
                self.protocol.benchmark_size().unwrap_or(0)
            ));
        }
        if *unanswered > 0 {
            warnings
                .push(format!("{} without an answer: counted as wrong", questions(*unanswered)));
        }
        if *missing > 0 {
            let treatment = match self.protocol.skips_missing() {
                true => "skipped, as in the official script",
                false => "counted as wrong",
            };
            warnings.push(format!("{} without a prediction: {treatment}", questions(*missing)));
        }
        if *without_answer_tag > 0 {
            warnings.push(match &self.pass_at {
                None => format!(
                    "{} whose completion has no closed `<answer>` tag: counted as wrong",
                    questions(*without_answer_tag)
                ),
                Some(PassAt { samples, .. }) => format!(
                    "{without_answer_tag} of {} samples without a closed `<answer>` tag: counted as wrong",
                    self.n * samples
                ),
            });
        }
        if !unscored_categories.is_empty() {
            let names: Vec<String> = unscored_categories
                .iter()
                .map(|(name, count)| format!("`{name}` ({count})"))
                .collect();
            warnings.push(format!(
                "{} of categories that `{}` does not score, skipped: {}",
                questions(unscored_categories.values().sum()),
                self.protocol.name(),
                names.join(", ")
            ));
        }
        if !unscored_answers.is_empty() {
            let ids: Vec<String> =
                unscored_answers.iter().take(3).map(|id| format!("`{id}`")).collect();
            warnings.push(format!(
                "{} whose reference answer is neither an option letter nor a number, skipped, such as {}; give them an \
                 `answer_type`, such as `text`",
                questions(unscored_answers.len()),
                ids.join(", ")
            ));
        }
        if !empty_categories.is_empty() {
            warnings.push(format!(
                "the macro mean is over {} of {} categories; without questions: {}",
                self.by_category.len(),
                self.protocol.categories().len(),
                empty_categories.join(", ")
            ));
        }
        warnings
    }
}

fn questions(count: usize) -> String {
    format!("{count} question{}", if count == 1 { "" } else { "s" })
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_entries(&mut map)?;
        map.end()
    }
}

impl Report {
    /// Serializes the fields into `map`.
    pub(crate) fn serialize_entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("protocol", self.protocol.name())?;
        map.serialize_entry("n", &self.n)?;
        map.serialize_entry("overall", &self.overall)?;
        map.serialize_entry("micro", &self.micro)?;
        map.serialize_entry("macro", &self.macro_)?;
        map.serialize_entry("by_category", &ByCategory(&self.by_category))?;
        if let Some(PassAt { overall, samples, temperature }) = &self.pass_at {
            map.serialize_entry("pass_at", overall)?;
            map.serialize_entry("samples", samples)?;
            if let Some(temperature) = temperature {
                map.serialize_entry("temperature", temperature)?;
            }
        }
        Ok(())
    }
}

struct ByCategory<'a>(&'a [CategoryScore]);

impl Serialize for ByCategory<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Cell<'a> {
            score: f64,
            n: usize,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            pass_at: &'a BTreeMap<usize, f64>,
        }
        serializer.collect_map(self.0.iter().map(|CategoryScore { name, score, n, pass_at }| {
            (name, Cell { score: *score, n: *n, pass_at })
        }))
    }
}
