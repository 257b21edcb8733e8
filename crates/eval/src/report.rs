//! Scores by category and their means.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::protocol::Protocol;

/// The scores of one file of predictions. All scores are from 0 to 100.
///
/// Written as JSON it is `{"protocol", "n", "overall", "micro", "macro", "by_category": {name:
/// {"score", "n"}}}`; the notes stay apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The rules.
    pub protocol: Protocol,
    /// Questions that count.
    pub n: usize,
    /// The protocol's overall score: `micro` or `macro`.
    pub overall: f64,
    /// The mean over questions.
    pub micro: f64,
    /// The mean over the categories that have questions.
    pub macro_: f64,
    /// The categories that have questions, in the order of the protocol's tables.
    pub by_category: Vec<Category>,
    /// What a reader of the scores should know.
    pub notes: Notes,
}

/// One category's score.
#[derive(Debug, Clone, PartialEq)]
pub struct Category {
    /// Its name, levels merged.
    pub name: &'static str,
    /// Its score, from 0 to 100.
    pub score: f64,
    /// Its questions that count.
    pub n: usize,
}

/// What was missing, left out or unreadable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Questions of the protocol's categories without any prediction.
    pub missing: usize,
    /// Whole outputs without a closed `<answer>` tag; they are wrong.
    pub untagged: usize,
    /// Questions left out because their category is not the protocol's, by category.
    pub unknown: BTreeMap<String, usize>,
    /// Categories of the protocol without questions.
    pub absent: Vec<&'static str>,
}

impl Report {
    /// The category called `name`, levels merged.
    pub fn category(&self, name: &str) -> Option<&Category> {
        self.by_category.iter().find(|category| category.name == name)
    }

    /// The notes in words, one sentence each; none where there is nothing to say.
    pub fn remarks(&self) -> Vec<String> {
        let Notes { missing, untagged, unknown, absent } = &self.notes;
        let mut remarks = Vec::new();
        if *missing > 0 {
            let fate = match self.protocol.leaves_out_missing() {
                true => "left out, as the official script does",
                false => "counted as wrong",
            };
            remarks.push(format!("{} without a prediction: {fate}", questions(*missing)));
        }
        if *untagged > 0 {
            remarks.push(format!(
                "{} whose output has no closed `<answer>` tag: counted as wrong",
                questions(*untagged)
            ));
        }
        if !unknown.is_empty() {
            let names: Vec<String> =
                unknown.iter().map(|(name, count)| format!("`{name}` ({count})")).collect();
            remarks.push(format!(
                "{} of categories that `{}` does not score, left out: {}",
                questions(unknown.values().sum()),
                self.protocol.name(),
                names.join(", ")
            ));
        }
        if !absent.is_empty() {
            remarks.push(format!(
                "the macro mean is over {} of {} categories; without questions: {}",
                self.by_category.len(),
                self.protocol.categories().len(),
                absent.join(", ")
            ));
        }
        remarks
    }
}

fn questions(count: usize) -> String {
    format!("{count} question{}", if count == 1 { "" } else { "s" })
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("protocol", self.protocol.name())?;
        map.serialize_entry("n", &self.n)?;
        map.serialize_entry("overall", &self.overall)?;
        map.serialize_entry("micro", &self.micro)?;
        map.serialize_entry("macro", &self.macro_)?;
        map.serialize_entry("by_category", &ByCategory(&self.by_category))?;
        map.end()
    }
}

struct ByCategory<'a>(&'a [Category]);

impl Serialize for ByCategory<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Cell {
            score: f64,
            n: usize,
        }
        serializer.collect_map(
            self.0.iter().map(|&Category { name, score, n }| (name, Cell { score, n })),
        )
    }
}
