//! Scorers of choices as EASI runs VLMEvalKit's.

use serde_json::Value;

use crate::benchmark::Scored;
use crate::error::Result;
use crate::extract::option_infer::infer_option;
use crate::extract::option_match::match_option;
use crate::predictions::Prediction;

/// What the scores of both matchers can be compared with.
pub(super) const COMPARABLE: &str =
    "VLMEvalKit (ms-vlmeval 0.0.20), and EASI's leaderboard where no judge scored again";

/// By the matcher that does not know the options; the solution goes through it too.
pub(super) fn matched(prediction: &Prediction) -> Result<Scored> {
    let found = prediction.output.answer().and_then(match_option);
    Ok(Scored::letter(found, match_option(&prediction.solution)))
}

/// By the matcher that knows the question's options, in the column `options`.
pub(super) fn inferred(prediction: &Prediction) -> Result<Scored> {
    let texts = prediction.columns.get("options").and_then(Value::as_array);
    let texts = texts.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let options: Vec<(char, String)> = ('A'..='Z').zip(texts).collect();
    let found = prediction.output.answer().and_then(|answer| infer_option(answer, &options));
    Ok(Scored::letter(found, prediction.solution.chars().next()))
}
