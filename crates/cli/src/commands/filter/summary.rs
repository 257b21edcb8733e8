//! Kept and dropped questions by category.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use embodied_r_data::question_set::QuestionSet;
use indexmap::IndexMap;
use serde::Serialize;

use super::journal::FilteredQuestion;

/// Share of one letter among the answers above which the model counts as biased.
const BIAS_SHARE: f64 = 0.7;
/// Minimum answers to detect a bias.
const BIAS_MIN_ANSWERS: usize = 20;

/// The most frequent letter among a model's answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct AnswerBias {
    pub(super) letter: char,
    /// Its share of the parsed answers.
    pub(super) share: f64,
}

/// Counts of questions, and shares of tries.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    tries: usize,
    drop_at: usize,
    #[serde(flatten)]
    all: Counts,
    /// Questions whose requests failed; they are kept.
    pub(super) failed: usize,
    /// Questions with a numeric answer; they are kept.
    numeric: usize,
    /// Questions skipped for lack of a published answer.
    unanswered: usize,
    #[serde(rename = "favourite")]
    bias: Option<AnswerBias>,
    by_category: IndexMap<String, Counts>,
}

/// The counts of one category, or in total.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Counts {
    questions: usize,
    asked: usize,
    dropped: usize,
    kept: usize,
    /// Share of correct tries.
    accuracy: Option<f64>,
    /// Share of tries without a parsable option.
    unreadable: Option<f64>,
    #[serde(skip)]
    tries: usize,
    #[serde(skip)]
    right: usize,
    #[serde(skip)]
    unparsed: usize,
}

impl Counts {
    fn add(&mut self, filtered: &FilteredQuestion) {
        self.asked += 1;
        self.dropped += usize::from(!filtered.kept);
        self.tries += filtered.answers.len();
        self.right += filtered.right;
        self.unparsed += filtered.answers.iter().filter(|answer| answer.is_none()).count();
    }

    fn finish(&mut self) {
        self.kept = self.questions - self.dropped;
        let share = |part: usize| (self.tries > 0).then(|| part as f64 / self.tries as f64);
        (self.accuracy, self.unreadable) = (share(self.right), share(self.unparsed));
    }
}

impl Summary {
    pub(super) fn new(
        set: &QuestionSet,
        with_options: usize,
        filtered: &[FilteredQuestion],
        (tries, drop_at): (usize, usize),
    ) -> Self {
        let mut summary = Self {
            tries,
            drop_at,
            failed: with_options - filtered.len(),
            numeric: set.questions.len() - with_options,
            unanswered: set.unanswered,
            bias: most_frequent(filtered),
            ..Self::default()
        };
        for question in &set.questions {
            summary.all.questions += 1;
            summary.by_category.entry(question.category().to_owned()).or_default().questions += 1;
        }
        for filtered in filtered {
            summary.all.add(filtered);
            summary.by_category.entry(filtered.category.clone()).or_default().add(filtered);
        }
        summary.all.finish();
        summary.by_category.values_mut().for_each(Counts::finish);
        summary
    }

    /// Whether most tries could not be parsed, which makes the filter unreliable.
    pub(super) fn is_unreadable(&self) -> bool {
        self.all.unreadable.is_some_and(|share| share > 0.5)
    }

    /// The model's bias towards one letter, if it is significant.
    pub(super) fn bias(&self) -> Option<AnswerBias> {
        let parsed = self.all.tries - self.all.unparsed;
        self.bias.filter(|bias| parsed >= BIAS_MIN_ANSWERS && bias.share > BIAS_SHARE)
    }

    /// A table by category, and a summary line.
    pub(super) fn table(&self, out: &Path) -> String {
        let all = ("all".to_owned(), self.all);
        let rows = self.by_category.iter().map(|(name, counts)| (name.clone(), *counts));
        let rows: Vec<(String, Counts)> = rows.chain([all]).collect();
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(8);
        let mut text = format!(
            "{:<width$} {:>9} {:>8} {:>7} {:>7} {:>11} {:>10}\n",
            "category", "questions", "answered", "dropped", "kept", "accuracy", "unparsed"
        );
        for (name, counts) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name:<width$} {:>9} {:>8} {:>7} {:>7} {:>11} {:>10}",
                counts.questions,
                counts.asked,
                counts.dropped,
                counts.kept,
                percent(counts.accuracy),
                percent(counts.unreadable)
            );
        }
        let _ = writeln!(
            text,
            "\ndropped questions with {} or more of {} tries correct; kept {} questions in {}",
            self.drop_at,
            self.tries,
            self.all.kept,
            out.display()
        );
        text
    }
}

fn most_frequent(filtered: &[FilteredQuestion]) -> Option<AnswerBias> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for letter in filtered.iter().flat_map(|filtered| &filtered.answers).flatten() {
        *counts.entry(*letter).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    let (letter, most) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    Some(AnswerBias { letter, share: most as f64 / all as f64 })
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}
