//! The quickstart's last table.

use std::fmt::Write as _;
use std::path::Path;

use embodied_r_data::question::read_questions;
use embodied_r_rewards::{Accuracy, Format, Reward, Scored};
use indexmap::IndexMap;

/// What a model reached on the rooms never seen.
pub(super) struct Test {
    name: String,
    file: String,
    all: Share,
    /// Over the answers in the right format alone.
    formatted: Share,
    categories: IndexMap<String, Share>,
}

/// Right answers of some questions.
#[derive(Default, Clone, Copy)]
struct Share {
    right: f64,
    of: f64,
}

impl Share {
    fn add(&mut self, right: f64) {
        self.right += right;
        self.of += 1.0;
    }

    fn percent(self) -> f64 {
        100.0 * self.right / self.of.max(1.0)
    }
}

impl Test {
    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The stem of its files.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Scores answered questions.
    pub(super) fn read(name: &str, file: &str, answers: &Path) -> anyhow::Result<Self> {
        let questions = read_questions(answers)?;
        let scored: Vec<Scored<'_>> = questions
            .iter()
            .map(|question| Scored {
                question: &question.question,
                solution: &question.answer,
                completion: question.content.as_deref().unwrap_or_default(),
                ..Scored::default()
            })
            .collect();
        let mut test = Self {
            name: name.to_owned(),
            file: file.to_owned(),
            all: Share::default(),
            formatted: Share::default(),
            categories: IndexMap::new(),
        };
        let (accuracy, format) = (Accuracy.score(&scored)?, Format.score(&scored)?);
        for ((question, accuracy), format) in questions.iter().zip(accuracy).zip(format) {
            let right = accuracy.value.unwrap_or(0.0);
            test.all.add(right);
            if format.value == Some(1.0) {
                test.formatted.add(right);
            }
            test.categories.entry(question.question_category.clone()).or_default().add(right);
        }
        test.categories.sort_keys();
        Ok(test)
    }
}

/// A Markdown table with a row a model.
pub(super) fn markdown(tests: &[Test]) -> String {
    let mut text = String::from("| rooms never seen | n | accuracy | format | of formatted |");
    let categories: Vec<&String> = tests.first().map_or(vec![], |t| t.categories.keys().collect());
    for category in &categories {
        let _ = write!(text, " {category} |");
    }
    text.push_str("\n|---|--:|--:|--:|--:|");
    text.push_str(&"--:|".repeat(categories.len()));
    for test in tests {
        let format = 100.0 * test.formatted.of / test.all.of.max(1.0);
        let _ = write!(
            text,
            "\n| {} | {} | {:.1} | {format:.1} | {:.1} |",
            test.name,
            test.all.of,
            test.all.percent(),
            test.formatted.percent()
        );
        for category in &categories {
            let share = test.categories.get(*category).copied().unwrap_or_default();
            let _ = write!(text, " {:.1} |", share.percent());
        }
    }
    text.push('\n');
    text
}
