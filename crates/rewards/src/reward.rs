//! The reward function interface.

use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value};

use crate::answer;
use crate::answer_type::AnswerType;
use crate::error::Result;
pub use crate::score::Score;
use crate::solution::alternatives;

/// One completion to score.
#[derive(Debug, Clone, Copy, Default)]
pub struct RewardInput<'a> {
    /// The question's identifier; empty if it has none.
    pub id: &'a str,
    /// The prompt, or the question alone. The question starts at the last `Question:`.
    pub question: &'a str,
    /// The reference answer: an option letter or a number, or what `answer_type` says.
    pub solution: &'a str,
    /// How the answer is compared with the reference answer, if the question says so.
    pub answer_type: Option<AnswerType>,
    /// The model's full output, without the prompt and the stop token.
    pub completion: &'a str,
    /// The completion's token ids, including the stop token if it was sampled. `None` for saved
    /// text. Length-based rewards need them.
    pub completion_ids: Option<&'a [u32]>,
    /// The paths of the question's images; bytes are named as in the question file.
    pub images: &'a [String],
    /// The question's further columns, for external rewards.
    pub columns: Option<&'a Map<String, Value>>,
}

/// The score for the reference answer, or the best one if there are several, out of its `<answer>` tag.
pub(crate) fn best_score(
    input: &RewardInput<'_>,
    score: impl Fn(&RewardInput<'_>) -> Score,
) -> Score {
    let of = |solution: &str| {
        let solution = answer::answer_tag(solution).unwrap_or(solution);
        score(&RewardInput { solution, ..*input })
    };
    let Some(solutions) = alternatives(input.solution) else { return of(input.solution) };
    let best = solutions
        .iter()
        .map(|solution| of(solution))
        .reduce(|best, next| if next.value > best.value { next } else { best });
    best.unwrap_or_else(|| of(input.solution))
}

/// A reward function.
///
/// It gets whole batches, so a reward that queries a model can do so in one call.
pub trait Reward: Send + Sync {
    /// The name used in stage weights and metrics.
    fn name(&self) -> &str;

    /// One score per completion, in order.
    ///
    /// # Errors
    /// The batch cannot be scored, for example because the judge is unreachable. A bad completion
    /// is not an error; it scores 0.
    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>>;

    /// As [`Self::score`]. A reward that waits for a command or a service ends the wait soon after `stop` is set; others
    /// are fast and ignore it.
    ///
    /// # Errors
    /// As [`Self::score`], and [`Error::Interrupted`](crate::Error::Interrupted) after `stop` is set.
    fn score_until(&self, batch: &[RewardInput<'_>], _stop: &AtomicBool) -> Result<Vec<Score>> {
        self.score(batch)
    }
}
