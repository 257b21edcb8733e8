//! Numbers.

use super::kind::{Case, Kind, with_reason};
use crate::answer;
use crate::numeric::{mean_relative_accuracy, relative_accuracy};
use crate::score::Score;

/// A number, by its mean relative accuracy.
pub(super) static NUMBER: Kind = Kind {
    names: &["numerical", "numeric", "number"],
    questions: QUESTIONS,
    score: |case| score(case, mean_relative_accuracy),
    answer,
    drawing: None,
};

/// A number, by one minus its relative error.
pub(super) static REGRESSION: Kind = Kind {
    names: &["regression"],
    questions: QUESTIONS,
    score: |case| score(case, relative_accuracy),
    answer,
    drawing: None,
};

const QUESTIONS: &str = "numeric questions";

fn score(case: &Case<'_>, accuracy: fn(f64, f64) -> f64) -> Score {
    match answer::read_number(case.solution) {
        Ok(right) => of(case, right, accuracy),
        Err(_) => Score::absent(format!("the solution `{}` is not a number", case.solution)),
    }
}

/// The score for the number `right`.
pub(super) fn of(case: &Case<'_>, right: f64, accuracy: fn(f64, f64) -> f64) -> Score {
    match answer::number(case.completion) {
        Ok(number) => {
            with_reason(accuracy(number, right), || format!("answered {number}, expected {right}"))
        }
        Err(error) => Score::zero(error.to_string()),
    }
}

fn answer(completion: &str) -> Option<String> {
    answer::number(completion).ok().map(|number| number.to_string())
}
