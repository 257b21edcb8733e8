//! Scores of greedy replies.

use std::path::Path;

use embodied_r_data::question::{Question, read_questions};
use embodied_r_rewards::{Accuracy, Format, Reward, RewardInput};
use serde::Serialize;

/// A model's scores on a question set; shares are per cent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Scores {
    /// Number of questions.
    pub(super) n: usize,
    /// Correct replies.
    pub(super) accuracy: f64,
    /// Standard error of `accuracy`.
    pub(super) stderr: f64,
    /// Well-formed replies.
    pub(super) parsable: f64,
    /// Correct replies among the well-formed ones.
    pub(super) accuracy_of_parsable: f64,
    /// Mean length of the replies.
    pub(super) tokens: f64,
}

impl Scores {
    /// As the cells of a table: number, accuracy, parsable, of parsable.
    pub(super) fn cells(&self) -> [String; 4] {
        [
            self.n.to_string(),
            format!("{:.1} ± {:.1}", self.accuracy, self.stderr),
            format!("{:.1}", self.parsable),
            format!("{:.1}", self.accuracy_of_parsable),
        ]
    }
}

/// Whether a reply is correct and well formed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Marks {
    /// The accuracy reward.
    pub(super) correct: f64,
    /// Whether the format is right.
    pub(super) parsable: bool,
}

impl Marks {
    /// Marks the reply to a question with this prompt and solution.
    pub(super) fn new(prompt: &str, solution: &str, reply: &str) -> anyhow::Result<Self> {
        let input = [RewardInput {
            question: prompt,
            solution,
            completion: reply,
            ..RewardInput::default()
        }];
        let of = |reward: &dyn Reward| -> anyhow::Result<f64> {
            Ok(reward.score(&input)?.first().and_then(|score| score.value).unwrap_or(0.0))
        };
        Ok(Self { correct: of(&Accuracy::default())?, parsable: of(&Format::default())? == 1.0 })
    }

    /// Marks the greedy reply of an answered question.
    pub(super) fn of(question: &Question) -> anyhow::Result<Self> {
        let reply = question.content.as_deref().unwrap_or_default();
        Self::new(&question.question, &question.answer, reply)
    }
}

/// Sums over replies.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    n: usize,
    correct: f64,
    parsable: f64,
    correct_parsable: f64,
    tokens: f64,
}

impl Tally {
    /// Adds a reply of this many tokens.
    pub(super) fn add(&mut self, marks: Marks, tokens: usize) {
        let parsable = f64::from(u8::from(marks.parsable));
        self.n += 1;
        self.correct += marks.correct;
        self.parsable += parsable;
        self.correct_parsable += marks.correct * parsable;
        self.tokens += tokens as f64;
    }

    /// The scores of the replies so far.
    pub(super) fn scores(&self) -> Scores {
        let n = self.n.max(1) as f64;
        let correct = self.correct / n;
        Scores {
            n: self.n,
            accuracy: 100.0 * correct,
            stderr: 100.0 * (correct * (1.0 - correct) / n).sqrt(),
            parsable: 100.0 * self.parsable / n,
            accuracy_of_parsable: 100.0 * self.correct_parsable / self.parsable.max(1.0),
            tokens: self.tokens / n,
        }
    }
}

/// The accuracy of a file of questions with replies, per cent.
pub(super) fn accuracy(answers: &Path) -> anyhow::Result<f64> {
    let mut tally = Tally::default();
    for question in read_questions(answers)? {
        tally.add(Marks::of(&question)?, 0);
    }
    Ok(tally.scores().accuracy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_per_cent_of_all_replies_and_of_the_well_formed_ones() {
        let mut tally = Tally::default();
        for (reply, tokens) in [
            ("<think>x</think><answer>A</answer>", 9),
            ("<think>x</think><answer>B</answer>", 9),
            ("<answer>A</answer>", 5),
            ("A", 1),
        ] {
            tally.add(Marks::new("q", "A", reply).unwrap(), tokens);
        }
        let expected = Scores {
            n: 4,
            accuracy: 50.0,
            stderr: 25.0,
            parsable: 50.0,
            accuracy_of_parsable: 50.0,
            tokens: 6.0,
        };
        assert_eq!(tally.scores(), expected);
    }
}
