//! Scores by category and their means.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::benchmark::Missing;
use crate::protocol::Protocol;

/// The scores of a prediction file. All scores but those of single questions are from 0 to 100.
///
/// Its JSON is `{"benchmark", "protocol", "scorer", "prompt", "frames", "data_sha256", "n", "answered", "missing",
/// "unparsed", "partial", "overall", "micro", "macro", "by_category": {name: {"score", "n"}}, "questions": [{"id",
/// "extracted", "score"}]}`; `protocol` is the same as `benchmark`. With several samples per question it has no `questions`,
/// but `{"pass_at": {k: score}, "samples", "temperature"}` and `pass_at` by category.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The benchmark and the scorer.
    pub protocol: Protocol,
    /// Number of scored questions.
    pub n: usize,
    /// The scorer's overall score: `micro` or `macro`.
    pub overall: f64,
    /// The mean over questions.
    pub micro: f64,
    /// The mean over the categories with questions.
    pub macro_: f64,
    /// The categories with questions, in the benchmark's order.
    pub by_category: Vec<CategoryScore>,
    /// The scored questions, in the order of the predictions; empty with several samples per question.
    pub questions: Vec<QuestionScore>,
    /// pass@k, if the report is over several samples per question. All other scores are then means over
    /// the samples.
    pub pass_at: Option<PassAt>,
    /// Missing, unparsable and skipped questions.
    pub coverage: Coverage,
    /// What else decided the scores.
    pub context: Context,
}

/// What decided the scores besides the scorer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// The prompt that the model was given, if known.
    pub prompt: Option<String>,
    /// Which frames of videos it saw, if known.
    pub frames: Option<String>,
    /// The SHA-256 digest of the benchmark's questions, if they were read.
    pub data_sha256: Option<String>,
    /// Whether only the first questions were scored.
    pub is_limited: bool,
}

/// The score of one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuestionScore {
    /// The question's identifier.
    pub id: String,
    /// The answer as the scorer extracted it; `None` if there is none.
    pub extracted: Option<String>,
    /// From 0 to 1.
    pub score: f64,
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
    /// Outputs (of all samples) from which the scorer extracts no answer; counted as wrong.
    pub unparsed: usize,
    /// Completions (of all samples) without a closed `<answer>` tag; counted as wrong.
    pub without_answer_tag: usize,
    /// Skipped questions by category, for categories outside the protocol.
    pub unscored_categories: BTreeMap<String, usize>,
    /// Questions whose reference answer cannot be scored, skipped.
    pub unscored_answers: BTreeSet<String>,
    /// The protocol's categories without questions.
    pub empty_categories: Vec<&'static str>,
}

impl Report {
    /// The category called `name`, levels merged.
    pub fn category(&self, name: &str) -> Option<&CategoryScore> {
        self.by_category.iter().find(|category| category.name == name)
    }

    fn skips_missing(&self) -> bool {
        self.protocol.benchmark.missing == Missing::Skipped
    }

    /// Whether fewer questions are scored than the benchmark has, so that the scores are not comparable with published
    /// ones.
    pub fn is_partial(&self) -> bool {
        let is_less = |size| self.n < size;
        self.context.is_limited || self.protocol.benchmark.size.is_some_and(is_less)
    }

    /// Questions without an output.
    fn missing(&self) -> usize {
        self.coverage.missing + self.coverage.unanswered
    }

    /// What decided the scores, for people.
    pub fn provenance(&self) -> Vec<String> {
        let Context { prompt, frames, data_sha256, .. } = &self.context;
        let scorer = self.protocol.scorer;
        let known = [("prompt", prompt), ("frames", frames), ("data, SHA-256", data_sha256)];
        let known = known.into_iter().filter_map(|(what, value)| Some((what, value.as_ref()?)));
        [format!("scorer: {}, comparable with {}", scorer.name, scorer.comparable)]
            .into_iter()
            .chain(known.map(|(what, value)| format!("{what}: {value}")))
            .collect()
    }

    /// Records in the coverage how many of the benchmark's questions the predictions say nothing of. For predictions that
    /// are not scored against a question set, since only then may they be answers that are left out.
    pub fn set_unrecorded(&mut self) {
        let scored = self.n + self.coverage.missing * usize::from(self.skips_missing());
        let size = self.protocol.benchmark.size.unwrap_or(0);
        self.coverage.unrecorded = size.saturating_sub(scored);
    }

    /// The coverage as messages; empty if every question was scored.
    pub fn warnings(&self) -> Vec<String> {
        let Coverage {
            missing,
            unanswered,
            unrecorded,
            unparsed,
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
                self.protocol.benchmark.size.unwrap_or(0)
            ));
        }
        if *unanswered > 0 {
            warnings
                .push(format!("{} without an answer: counted as wrong", questions(*unanswered)));
        }
        if *missing > 0 {
            let treatment = match self.skips_missing() {
                true => "skipped, as in the official script",
                false => "counted as wrong",
            };
            warnings.push(format!("{} without a prediction: {treatment}", questions(*missing)));
        }
        if unparsed > without_answer_tag {
            let outputs = if self.pass_at.is_some() { "samples" } else { "answers" };
            warnings.push(format!(
                "{} {outputs} from which the scorer `{}` extracts nothing: counted as wrong",
                unparsed - without_answer_tag,
                self.protocol.scorer.name
            ));
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
                self.protocol.benchmark.name,
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
                self.protocol.benchmark.category_names().len(),
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
        let Context { prompt, frames, data_sha256, .. } = &self.context;
        let skipped = if self.skips_missing() { self.coverage.missing } else { 0 };
        map.serialize_entry("benchmark", self.protocol.benchmark.name)?;
        map.serialize_entry("protocol", self.protocol.benchmark.name)?;
        map.serialize_entry("scorer", self.protocol.scorer.name)?;
        map.serialize_entry("prompt", prompt)?;
        map.serialize_entry("frames", frames)?;
        map.serialize_entry("data_sha256", data_sha256)?;
        map.serialize_entry("n", &self.n)?;
        map.serialize_entry("answered", &(self.n + skipped - self.missing()))?;
        map.serialize_entry("missing", &self.missing())?;
        map.serialize_entry("unparsed", &self.coverage.unparsed)?;
        map.serialize_entry("partial", &self.is_partial())?;
        map.serialize_entry("overall", &self.overall)?;
        map.serialize_entry("micro", &self.micro)?;
        map.serialize_entry("macro", &self.macro_)?;
        map.serialize_entry("by_category", &ByCategory(&self.by_category))?;
        if !self.questions.is_empty() {
            map.serialize_entry("questions", &self.questions)?;
        }
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
