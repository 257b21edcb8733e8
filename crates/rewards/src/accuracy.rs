//! The accuracy reward: is the answer in the `<answer>` tag correct?

use crate::answer;
use crate::error::Result;
use crate::numeric::mean_relative_accuracy;
use crate::reward::{Reward, RewardInput, Score};

/// 1 for the correct option letter, else 0; numeric answers score their mean relative accuracy.
///
/// Only the `<answer>` tag is parsed, by the rules of [`answer`]; letters in the reasoning never
/// count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accuracy;

impl Reward for Accuracy {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        Ok(batch.iter().map(accuracy).collect())
    }
}

/// A reference answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Solution {
    /// An option letter, upper case.
    Letter(char),
    /// A number.
    Number(f64),
}

impl Solution {
    /// Parses a reference answer: a number, or one option letter in any form that [`answer`] accepts.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Some(Self::Number(number)),
            _ => answer::option_letter(text).map(Self::Letter),
        }
    }
}

fn accuracy(input: &RewardInput<'_>) -> Score {
    match Solution::parse(input.solution) {
        Some(Solution::Letter(right)) => match answer::letter(input.completion) {
            Ok(letter) if letter == right => Score::full(),
            Ok(letter) => Score::zero(format!("answered {letter}, expected {right}")),
            Err(error) => Score::zero(error.to_string()),
        },
        Some(Solution::Number(right)) => match answer::number(input.completion) {
            Ok(number) => match mean_relative_accuracy(number, right) {
                1.0 => Score::full(),
                value => Score {
                    value: Some(value),
                    reason: Some(format!("answered {number}, expected {right}")),
                },
            },
            Err(error) => Score::zero(error.to_string()),
        },
        None => Score::absent(format!(
            "the solution `{}` is neither an option letter nor a number",
            input.solution
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(solution: &str, completion: &str) -> Score {
        let input = RewardInput { solution, completion, ..RewardInput::default() };
        Accuracy.score(&[input]).unwrap().remove(0)
    }

    #[test]
    fn the_correct_letter_scores_one() {
        assert_eq!(score("B", "<think>A or C</think><answer>b</answer>"), Score::full());
        assert_eq!(score(" b ", "<answer>B. A tree</answer>"), Score::full());
    }

    #[test]
    fn a_wrong_letter_scores_zero_and_reports_both() {
        assert_eq!(score("B", "<answer>C</answer>"), Score::zero("answered C, expected B"));
    }

    #[test]
    fn hedging_scores_zero() {
        assert_eq!(score("B", "<answer>A or B</answer>").value, Some(0.0));
        assert_eq!(score("B", "<answer>A</answer><answer>B</answer>").value, Some(0.0));
    }

    #[test]
    fn a_letter_outside_the_tag_scores_zero() {
        assert_eq!(
            score("B", "<think>B</think> The answer is B."),
            Score::zero("no `<answer>` tag")
        );
    }

    #[test]
    fn a_number_scores_its_mean_relative_accuracy() {
        assert_eq!(score("10", "<answer>10 chairs</answer>"), Score::full());
        assert_eq!(
            score("10", "<answer>9.0</answer>"),
            Score { value: Some(0.9), reason: Some("answered 9, expected 10".to_owned()) }
        );
        assert_eq!(score("10", "<answer>ten</answer>").value, Some(0.0));
    }

    #[test]
    fn a_solution_that_is_neither_letter_nor_number_gives_no_score() {
        assert_eq!(score("left", "<answer>B</answer>").value, None);
    }

    #[test]
    fn scores_keep_the_order_of_the_batch() {
        let completion = "<answer>A</answer>";
        let input = |solution| RewardInput { solution, completion, ..RewardInput::default() };
        let scores = Accuracy.score(&[input("A"), input("B"), input("A")]).unwrap();
        let values: Vec<_> = scores.into_iter().map(|score| score.value).collect();
        assert_eq!(values, [Some(1.0), Some(0.0), Some(1.0)]);
    }
}
