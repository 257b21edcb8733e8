//! The rule of EmbSpatial-Bench and of BLINK: the letter at the start.

use crate::benchmark::Scored;
use crate::error::Result;
use crate::extract::python::is_space;
use crate::extract::reasoning::without_reasoning;
use crate::predictions::Prediction;

/// The first character behind white space and `(`, if it is an ASCII letter of either case. Reasoning is removed.
pub(super) fn official(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(without_reasoning);
    let found = answer.as_deref().and_then(extracted);
    Ok(Scored::letter(found, prediction.solution.chars().next()))
}

fn extracted(answer: &str) -> Option<char> {
    let start = answer.trim_start_matches(|char| is_space(char) || char == '(');
    let letter = start.chars().next()?;
    letter.is_ascii_alphabetic().then(|| letter.to_ascii_uppercase())
}
