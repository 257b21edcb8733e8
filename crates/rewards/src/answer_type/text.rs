//! Texts.

use super::kind::{Case, Kind, excerpt, with_reason};
use crate::answer;
use crate::rouge::Rouge;
use crate::score::Score;
use crate::text_match::{is_same_text, word_error_rate};

/// A transcription.
pub(super) static OCR: Kind = Kind {
    names: &["OCR"],
    questions: QUESTIONS,
    score: |case| score(case, |answer, right| 1.0 - word_error_rate(answer, right)),
    answer,
    drawing: None,
};

/// A text by its ROUGE.
pub(super) static FREE_FORM: Kind = Kind {
    names: &["free-form", "open-ended"],
    questions: QUESTIONS,
    score: |case| score(case, |answer, right| Rouge::of(answer, right).mean()),
    answer,
    drawing: None,
};

/// A text that must be equal.
pub(super) static TEXT: Kind = Kind {
    names: &["text", "exact match"],
    questions: QUESTIONS,
    score: |case| score(case, |answer, right| if is_same_text(answer, right) { 1.0 } else { 0.0 }),
    answer,
    drawing: None,
};

const QUESTIONS: &str = "questions with texts as answers";

fn score(case: &Case<'_>, accuracy: impl Fn(&str, &str) -> f64) -> Score {
    let right = case.solution.trim();
    if right.is_empty() {
        return Score::absent("the solution is empty");
    }
    match answer::text(case.completion) {
        Ok(answer) => with_reason(accuracy(answer, right).clamp(0.0, 1.0), || {
            format!("answered `{}`, expected `{}`", excerpt(answer), excerpt(right))
        }),
        Err(error) => Score::zero(error.to_string()),
    }
}

/// The text in the tag.
pub(super) fn answer(completion: &str) -> Option<String> {
    answer::text(completion).ok().map(str::to_owned)
}
