//! Questions of any category, scored by the `accuracy` reward.

use std::borrow::Cow;

use embodied_r_rewards::accuracy::Accuracy;
use embodied_r_rewards::{Reward as _, RewardInput};

use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Missing, Scored, Scorer, wrong_solution,
};
use crate::error::Result;
use crate::predictions::{Prediction, PredictionOutput};

/// Questions of any category, by the `accuracy` reward; overall is the mean over questions.
pub static ACCURACY: Benchmark = Benchmark {
    name: "accuracy",
    title: "Questions of any category, scored as by the `accuracy` reward (option letters, numbers, or by \
            `answer_type`), mean over questions",
    categories: Categories::Any,
    detection: Detection::None,
    size: None,
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Skipped,
    scorer: Scorer::micro(
        "official",
        "no other harness: answers are read by the `accuracy` reward",
        accuracy,
    ),
    other_scorers: &[],
    layout: None,
    published: None,
};

fn accuracy(prediction: &Prediction) -> Result<Scored> {
    let Prediction { solution, answer_type, columns, output, .. } = prediction;
    let completion = match output {
        PredictionOutput::Completion(text) => Cow::Borrowed(text.as_str()),
        PredictionOutput::Answer(text) => Cow::Owned(format!("<answer>{text}</answer>")),
        PredictionOutput::Missing | PredictionOutput::Unanswered => Cow::Borrowed(""),
    };
    let (completion, answer_type) = (completion.as_ref(), *answer_type);
    let columns = Some(columns);
    let input =
        RewardInput { solution, completion, answer_type, columns, ..RewardInput::default() };
    let expected = match answer_type {
        Some(_) => "a reference answer of its `answer_type`",
        None => "an option letter or a number, as for questions without `answer_type`",
    };
    let scores = Accuracy::default().score(&[input])?;
    match scores.first().and_then(|score| score.value) {
        Some(score) => Ok(Scored { extracted: output.answer().map(str::to_owned), score }),
        None => Err(wrong_solution(prediction, expected)),
    }
}
