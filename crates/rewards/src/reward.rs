//! What a reward is.

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// One completion to be scored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scored<'a> {
    /// The question's own identifier; empty where it has none.
    pub id: &'a str,
    /// The prompt, or the question alone; the question proper begins at the last `Question:`.
    pub question: &'a str,
    /// The right answer: an option letter, or a number.
    pub solution: &'a str,
    /// The model's whole output, without the prompt and the stop token.
    pub completion: &'a str,
    /// The completion's tokens, with the stop token where there is one; `None` for saved text,
    /// whose tokens are not known. Rewards by length count them.
    pub completion_ids: Option<&'a [u32]>,
}

/// A raw, unweighted score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// A finite number: from 0 to 1 for accuracy, format and consistency, 0 or less for
    /// punishments, and whatever an outside reward gives. `None` where the reward does not apply
    /// or could not be had. Such a score adds nothing to the weighted sum and counts in no mean.
    pub value: Option<f64>,
    /// Why the score is less than the best, in words.
    pub why: Option<String>,
}

impl Score {
    /// The full point.
    pub fn full() -> Self {
        Self { value: Some(1.0), why: None }
    }

    /// No point, and why.
    pub fn zero(why: impl Into<String>) -> Self {
        Self { value: Some(0.0), why: Some(why.into()) }
    }

    /// No score at all, and why.
    pub fn absent(why: impl Into<String>) -> Self {
        Self { value: None, why: Some(why.into()) }
    }

    /// No score of a reward by length, where only text is known.
    pub(crate) fn unknown_length() -> Self {
        Self::absent("the length in tokens is not known")
    }
}

/// A rule that scores completions.
///
/// Whole batches are handed over, so that a reward that asks a model can do so in one go.
pub trait Reward: Send + Sync {
    /// The name by which stages weigh it and logs show it.
    fn name(&self) -> &str;

    /// One score a completion, in order.
    ///
    /// # Errors
    /// The reward cannot be had for the whole batch, for example because its judge is out of
    /// reach. A completion that is merely bad scores 0.
    fn score(&self, batch: &[Scored<'_>]) -> Result<Vec<Score>>;
}
