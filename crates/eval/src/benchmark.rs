//! What a benchmark is: its categories, how its answers are scored, and what was published about it.

use std::collections::BTreeSet;

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};

use crate::category::category_name;
use crate::error::{Error, Result};
use crate::predictions::Prediction;
use crate::published::PublishedTable;

/// A benchmark: one row of [`BENCHMARKS`](crate::benchmarks::BENCHMARKS).
#[derive(Debug)]
pub struct Benchmark {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub title: &'static str,
    /// The categories that it scores.
    pub categories: Categories,
    /// Whether the categories of questions choose it.
    pub detection: Detection,
    /// Number of questions in the full benchmark, or of those with published answers; `None` if it has no fixed questions.
    pub size: Option<usize>,
    /// How a record without a prediction counts.
    pub missing: Missing,
    /// How a question counts whose reference answer cannot be scored.
    pub invalid_solution: InvalidSolution,
    /// Its scorer by default.
    pub scorer: Scorer,
    /// Its other scorers.
    pub other_scorers: &'static [Scorer],
    /// Its own files; `None` if its questions are read from question files.
    pub layout: Option<&'static Layout>,
    /// Published results.
    pub published: Option<&'static PublishedTable>,
}

/// A benchmark's files as they are published, and how they become prompts.
#[derive(Debug)]
pub struct Layout {
    /// Where the data set is published, such as a data set on the Hugging Face Hub.
    pub source: &'static str,
    /// The annotation files below its folder, as glob patterns; the first one that matches counts.
    pub files: &'static [&'static str],
    /// Columns by which its annotation files are recognized.
    pub columns: &'static [&'static str],
    /// The names of its prompts: whose they are, or [`EMBODIED_R_PROMPT`](crate::own_prompt::EMBODIED_R_PROMPT); the first is the default.
    pub prompts: &'static [&'static str],
    /// Rules that select frames of its videos, as `--frames` takes them; the first is the default. None for images.
    pub frames: &'static [&'static str],
    /// What a record asks under the prompt of this name.
    pub question: fn(&Annotation<'_>, &str) -> embodied_r_data::Result<AnnotatedQuestion>,
}

/// The categories of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Categories {
    /// Those of the questions, whatever they are called.
    Any,
    /// These alone, in the order of tables. A question in one of `levels` counts for the category beside it.
    Listed {
        /// The names in reports.
        names: &'static [&'static str],
        /// Other names of categories: parts that are merged, and other spellings.
        levels: &'static [(&'static str, &'static str)],
    },
}

/// Whether the categories of questions choose a benchmark that is not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detection {
    /// They do, if all of them are the benchmark's.
    Alone,
    /// Its categories are known, but several benchmarks have them.
    Shared,
    /// They do not: others may use the same names.
    None,
}

/// How a record without a prediction counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// As a wrong answer.
    Wrong,
    /// It is skipped, as in an official script.
    Skipped,
}

/// How a question counts whose reference answer cannot be scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidSolution {
    /// It is an error: the data is not the benchmark's.
    Error,
    /// It is skipped.
    Skipped,
}

/// One way to extract and score a benchmark's answers, and to average the scores.
#[derive(Debug)]
pub struct Scorer {
    /// Its name on the command line.
    pub name: &'static str,
    /// Whose scores may be compared with its own: a harness, and its versions.
    pub comparable: &'static str,
    /// The score of one prediction.
    ///
    /// # Errors
    /// [`Error::Solution`] if the solution is not of the kind that its category requires.
    pub score: fn(&Prediction) -> Result<Scored>,
    /// The mean that is the overall score.
    pub overall: Mean,
    /// How the levels of a category are combined.
    pub level_aggregation: LevelAggregation,
    /// Categories that do not count in the overall score.
    pub uncounted: &'static [&'static str],
    /// The name of the group that a question is in, for [`Mean::Groups`].
    pub group: Option<fn(&Prediction) -> String>,
}

/// The score of one prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The answer as it was extracted; `None` if there is none to extract.
    pub extracted: Option<String>,
    /// From 0 to 1.
    pub score: f64,
}

/// The mean used as an overall score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mean {
    /// Mean over questions.
    Micro,
    /// Mean over categories.
    Macro,
    /// The share of groups of questions all of which are right.
    Groups,
}

/// How the levels of a category are combined into one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelAggregation {
    /// Mean over the questions of all levels.
    Pooled,
    /// Mean over the levels' scores.
    Averaged,
}

impl Categories {
    /// Listed categories without levels.
    pub(crate) const fn listed(names: &'static [&'static str]) -> Self {
        Self::Listed { names, levels: &[] }
    }
}

impl Scorer {
    /// A scorer whose overall score is the mean over questions.
    pub(crate) const fn micro(
        name: &'static str,
        comparable: &'static str,
        score: fn(&Prediction) -> Result<Scored>,
    ) -> Self {
        Self {
            name,
            comparable,
            score,
            overall: Mean::Micro,
            level_aggregation: LevelAggregation::Pooled,
            uncounted: &[],
            group: None,
        }
    }

    /// A scorer whose overall score is the mean over categories, each the mean of its levels.
    pub(crate) const fn macro_(
        name: &'static str,
        comparable: &'static str,
        score: fn(&Prediction) -> Result<Scored>,
    ) -> Self {
        Self {
            overall: Mean::Macro,
            level_aggregation: LevelAggregation::Averaged,
            ..Self::micro(name, comparable, score)
        }
    }
}

impl Scored {
    /// The comparison of an option letter with the solution.
    pub(crate) fn letter(found: Option<char>, solution: Option<char>) -> Self {
        Self::choice(found.map(String::from), found.is_some() && found == solution)
    }

    /// 1 for a right answer, else 0.
    pub(crate) fn choice(extracted: Option<String>, is_right: bool) -> Self {
        Self { extracted, score: if is_right { 1.0 } else { 0.0 } }
    }
}

impl Benchmark {
    /// The names of its categories, in the order of tables; none if it scores any.
    pub fn category_names(&self) -> &'static [&'static str] {
        match self.categories {
            Categories::Any => &[],
            Categories::Listed { names, .. } => names,
        }
    }

    /// The scored category of questions of `category`; `None` if they are not scored.
    pub fn scored_category<'a>(&self, category: &'a str) -> Option<&'a str> {
        let Categories::Listed { names, levels } = self.categories else {
            return Some(category_name(category));
        };
        let merged = levels.iter().find(|(level, _)| *level == category);
        let name = merged.map_or(category, |(_, name)| name);
        names.iter().copied().find(|&known| known == name)
    }

    /// The scored categories that are in `found`, in the order of tables; sorted if it scores any.
    pub(crate) fn ordered<'a>(&self, found: &BTreeSet<&'a str>) -> Vec<&'a str> {
        match self.categories {
            Categories::Any => found.iter().copied().collect(),
            Categories::Listed { names, .. } => {
                names.iter().filter_map(|name| found.get(name).copied()).collect()
            }
        }
    }

    /// All its scorers, the default one first.
    pub fn scorers(&self) -> impl Iterator<Item = &Scorer> {
        [&self.scorer].into_iter().chain(self.other_scorers)
    }
}

/// Benchmarks are equal if their names are.
impl PartialEq for Benchmark {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Benchmark {}

/// Scorers of one benchmark are equal if their names are.
impl PartialEq for Scorer {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Scorer {}

/// The error that the solution is not `expected`.
pub(crate) fn wrong_solution(prediction: &Prediction, expected: &'static str) -> Error {
    Error::Solution {
        id: prediction.id.clone(),
        category: prediction.category.clone(),
        solution: prediction.solution.clone(),
        expected,
    }
}
