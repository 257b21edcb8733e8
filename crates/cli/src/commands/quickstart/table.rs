//! The quickstart's results table.

use std::fmt::Write as _;
use std::path::Path;

use embodied_r_data::question::read_questions;
use embodied_r_rewards::{self as rewards, Format, Reward, RewardInput};
use indexmap::IndexMap;

/// A model's scores on the held-out rooms.
pub(super) struct Test {
    name: String,
    file: String,
    all: Accuracy,
    /// Over well-formatted completions only.
    formatted: Accuracy,
    categories: IndexMap<String, Accuracy>,
}

/// Correct answers among some questions.
#[derive(Default, Clone, Copy)]
struct Accuracy {
    correct: f64,
    total: f64,
}

impl Accuracy {
    fn add(&mut self, correct: f64) {
        self.correct += correct;
        self.total += 1.0;
    }

    fn percent(self) -> f64 {
        100.0 * self.correct / self.total.max(1.0)
    }
}

impl Test {
    /// Name of the model.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Stem of its files.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Scores a file of answered questions.
    pub(super) fn read(name: &str, file: &str, answers: &Path) -> anyhow::Result<Self> {
        let questions = read_questions(answers)?;
        let scored: Vec<RewardInput<'_>> = questions
            .iter()
            .map(|question| RewardInput {
                question: &question.question,
                solution: &question.answer,
                completion: question.content.as_deref().unwrap_or_default(),
                ..RewardInput::default()
            })
            .collect();
        let mut test = Self {
            name: name.to_owned(),
            file: file.to_owned(),
            all: Accuracy::default(),
            formatted: Accuracy::default(),
            categories: IndexMap::new(),
        };
        let (accuracy, format) = (rewards::Accuracy.score(&scored)?, Format.score(&scored)?);
        for ((question, accuracy), format) in questions.iter().zip(accuracy).zip(format) {
            let correct = accuracy.value.unwrap_or(0.0);
            test.all.add(correct);
            if format.value == Some(1.0) {
                test.formatted.add(correct);
            }
            test.categories.entry(question.question_category.clone()).or_default().add(correct);
        }
        test.categories.sort_keys();
        Ok(test)
    }
}

/// A Markdown table with one row per model.
pub(super) fn markdown(tests: &[Test]) -> String {
    let mut text =
        String::from("| held-out rooms | n | accuracy | format | accuracy if formatted |");
    let categories: Vec<&String> = tests.first().map_or(vec![], |t| t.categories.keys().collect());
    for category in &categories {
        let _ = write!(text, " {category} |");
    }
    text.push_str("\n|---|--:|--:|--:|--:|");
    text.push_str(&"--:|".repeat(categories.len()));
    for test in tests {
        let format = 100.0 * test.formatted.total / test.all.total.max(1.0);
        let _ = write!(
            text,
            "\n| {} | {} | {:.1} | {format:.1} | {:.1} |",
            test.name,
            test.all.total,
            test.all.percent(),
            test.formatted.percent()
        );
        for category in &categories {
            let accuracy = test.categories.get(*category).copied().unwrap_or_default();
            let _ = write!(text, " {:.1} |", accuracy.percent());
        }
    }
    text.push('\n');
    text
}
