//! What the filter kept and dropped, by category.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use embodied_r_data::question_set::QuestionSet;
use indexmap::IndexMap;
use serde::Serialize;

use super::journal::Tried;

/// A letter that is named in more of the tries than this is a habit of the model.
const HABIT: f64 = 0.7;
/// Fewer tries show no habit.
const HABIT_TRIES: usize = 20;

/// The letter that a model names most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Favourite {
    pub(super) letter: char,
    /// Its share of the tries that name any.
    pub(super) share: f64,
}

/// Counts of questions, and shares of tries.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    tries: usize,
    drop_at: usize,
    #[serde(flatten)]
    all: Counts,
    /// Questions that could not be asked; they are kept.
    pub(super) failed: usize,
    /// Questions with a number for an answer; they are kept.
    numeric: usize,
    /// Questions left out, since their answers are not known.
    unanswered: usize,
    favourite: Option<Favourite>,
    by_category: IndexMap<String, Counts>,
}

/// The counts of one category, or of all.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Counts {
    questions: usize,
    asked: usize,
    dropped: usize,
    kept: usize,
    /// Share of the tries that are right.
    accuracy: Option<f64>,
    /// Share of the tries that name no option.
    unreadable: Option<f64>,
    #[serde(skip)]
    tries: usize,
    #[serde(skip)]
    right: usize,
    #[serde(skip)]
    silent: usize,
}

impl Counts {
    fn add(&mut self, tried: &Tried) {
        self.asked += 1;
        self.dropped += usize::from(!tried.kept);
        self.tries += tried.answers.len();
        self.right += tried.right;
        self.silent += tried.answers.iter().filter(|answer| answer.is_none()).count();
    }

    fn finish(&mut self) {
        self.kept = self.questions - self.dropped;
        let share = |part: usize| (self.tries > 0).then(|| part as f64 / self.tries as f64);
        (self.accuracy, self.unreadable) = (share(self.right), share(self.silent));
    }
}

impl Summary {
    pub(super) fn new(
        set: &QuestionSet,
        with_options: usize,
        tried: &[Tried],
        (tries, drop_at): (usize, usize),
    ) -> Self {
        let mut summary = Self {
            tries,
            drop_at,
            failed: with_options - tried.len(),
            numeric: set.questions.len() - with_options,
            unanswered: set.unanswered,
            favourite: favourite(tried),
            ..Self::default()
        };
        for question in &set.questions {
            summary.all.questions += 1;
            summary.by_category.entry(question.question_category.clone()).or_default().questions +=
                1;
        }
        for tried in tried {
            summary.all.add(tried);
            summary.by_category.entry(tried.category.clone()).or_default().add(tried);
        }
        summary.all.finish();
        summary.by_category.values_mut().for_each(Counts::finish);
        summary
    }

    /// Whether most tries named no option, so that the filter says little.
    pub(super) fn is_unreadable(&self) -> bool {
        self.all.unreadable.is_some_and(|share| share > 0.5)
    }

    /// The letter that the model names whatever it is asked, if it has such a habit.
    pub(super) fn habit(&self) -> Option<Favourite> {
        let named = self.all.tries - self.all.silent;
        self.favourite.filter(|favourite| named >= HABIT_TRIES && favourite.share > HABIT)
    }

    /// A table by category, and where the rest is.
    pub(super) fn table(&self, out: &Path) -> String {
        let all = ("all".to_owned(), self.all);
        let rows = self.by_category.iter().map(|(name, counts)| (name.clone(), *counts));
        let rows: Vec<(String, Counts)> = rows.chain([all]).collect();
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(8);
        let mut text = format!(
            "{:<width$} {:>9} {:>7} {:>7} {:>7} {:>11} {:>10}\n",
            "category", "questions", "asked", "dropped", "kept", "right tries", "unreadable"
        );
        for (name, counts) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name:<width$} {:>9} {:>7} {:>7} {:>7} {:>11} {:>10}",
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
            "\ndropped from {} right of {} tries on; {} questions kept in {}",
            self.drop_at,
            self.tries,
            self.all.kept,
            out.display()
        );
        text
    }
}

fn favourite(tried: &[Tried]) -> Option<Favourite> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for letter in tried.iter().flat_map(|tried| &tried.answers).flatten() {
        *counts.entry(*letter).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    let (letter, most) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    Some(Favourite { letter, share: most as f64 / all as f64 })
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}
