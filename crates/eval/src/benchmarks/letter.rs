//! The scorer of multiple-choice questions by this project's rules.

use embodied_r_rewards::accuracy::Solution;

use crate::benchmark::{Scored, Scorer, wrong_solution};
use crate::error::Result;
use crate::predictions::Prediction;

/// The option letter that the `accuracy` reward reads; the mean is over questions.
pub(super) const SCORER: Scorer = Scorer::micro(
    "official",
    "no other harness: the letter is read by this program's rules",
    option_letter,
);

fn option_letter(prediction: &Prediction) -> Result<Scored> {
    let Some(Solution::Letter(solution)) = Solution::parse(&prediction.solution) else {
        return Err(wrong_solution(prediction, "an option letter"));
    };
    let letter = prediction.output.option_letter();
    Ok(Scored::choice(letter.map(String::from), letter == Some(solution)))
}
