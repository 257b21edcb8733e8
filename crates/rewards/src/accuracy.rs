//! The accuracy reward: is the answer in the `<answer>` tag right?

use crate::answer;
use crate::error::Result;
use crate::numeric::mean_relative_accuracy;
use crate::reward::{Reward, Score, Scored};

/// 1 for the right option letter, else 0; numeric answers score their mean relative accuracy.
///
/// Only the `<answer>` tag is read, by the rules of [`answer`]; letters in the reasoning never
/// count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accuracy;

impl Reward for Accuracy {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn score(&self, batch: &[Scored<'_>]) -> Result<Vec<Score>> {
        Ok(batch.iter().map(accuracy).collect())
    }
}

/// A right answer, as a data set gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Solution {
    /// An option letter, upper case.
    Letter(char),
    /// A number.
    Number(f64),
}

impl Solution {
    /// Reads a right answer: a number, or one option letter in any form that [`answer`] reads.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Some(Self::Number(number)),
            _ => answer::option_letter(text).map(Self::Letter),
        }
    }
}

fn accuracy(scored: &Scored<'_>) -> Score {
    match Solution::parse(scored.solution) {
        Some(Solution::Letter(right)) => match answer::letter(scored.completion) {
            Ok(letter) if letter == right => Score::full(),
            Ok(letter) => Score::zero(format!("answered {letter}, right is {right}")),
            Err(unreadable) => Score::zero(unreadable.to_string()),
        },
        Some(Solution::Number(right)) => match answer::number(scored.completion) {
            Ok(number) => match mean_relative_accuracy(number, right) {
                1.0 => Score::full(),
                value => Score {
                    value: Some(value),
                    why: Some(format!("answered {number}, right is {right}")),
                },
            },
            Err(unreadable) => Score::zero(unreadable.to_string()),
        },
        None => Score::absent(format!(
            "the solution `{}` is neither an option letter nor a number",
            scored.solution
        )),
    }
}
