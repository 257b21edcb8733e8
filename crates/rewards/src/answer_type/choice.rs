//! Option letters.

use super::kind::{Case, Kind, excerpt};
use super::number;
use crate::answer;
use crate::numeric::mean_relative_accuracy;
use crate::score::Score;
use crate::solution::Solution;

/// An option letter; a reference answer that is a number is compared as one.
pub(super) static CHOICE: Kind = Kind {
    names: &["multiple choice", "choice"],
    questions: "multiple-choice questions",
    score,
    answer: |completion| answer::letter(completion).ok().map(String::from),
    drawing: None,
};

fn score(case: &Case<'_>) -> Score {
    match Solution::parse(case.solution) {
        Some(Solution::Letter(right)) => match answer::letter(case.completion) {
            Ok(letter) if letter == right => Score::full(),
            Ok(letter) => Score::zero(format!("answered {letter}, expected {right}")),
            Err(error) => Score::zero(error.to_string()),
        },
        Some(Solution::Number(right)) => number::of(case, right, mean_relative_accuracy),
        None => Score::absent(format!(
            "the solution `{}` is neither an option letter nor a number",
            excerpt(case.solution)
        )),
    }
}
