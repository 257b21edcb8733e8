//! A penalty for repeated n-grams.

use std::collections::HashSet;

use crate::error::Result;
use crate::reward::{Reward, RewardInput, Score};

/// `(1 - distinct n-grams / n-grams) * max_penalty` over the lower-cased words of a completion
/// ("Demystifying Long Chain-of-Thought Reasoning", arXiv 2502.03373, appendix C.2; on words as in
/// ms-swift, while TRL uses tokens).
///
/// A completion of fewer than `n_grams` words scores 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repetition {
    /// Words per n-gram.
    pub n_grams: usize,
    /// The penalty, 0 or less, that fully repetitive completions approach.
    pub max_penalty: f64,
}

impl Default for Repetition {
    fn default() -> Self {
        Self { n_grams: 3, max_penalty: -1.0 }
    }
}

impl Reward for Repetition {
    fn name(&self) -> &str {
        "repetition"
    }

    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        Ok(batch.iter().map(|input| self.one(input.completion)).collect())
    }
}

impl Repetition {
    fn one(&self, completion: &str) -> Score {
        let n = self.n_grams.max(1);
        let text = completion.to_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        let total = words.windows(n).count();
        let distinct = words.windows(n).collect::<HashSet<_>>().len();
        if distinct == total {
            return Score { value: Some(0.0), reason: None };
        }
        let share = 1.0 - distinct as f64 / total as f64;
        let repeated = total - distinct;
        let reason = format!("{repeated} of {total} {n}-grams are repeated");
        Score { value: Some(share * self.max_penalty), reason: Some(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(n_grams: usize, max_penalty: f64, completion: &str) -> f64 {
        let input = RewardInput { completion, ..RewardInput::default() };
        Repetition { n_grams, max_penalty }.score(&[input]).unwrap()[0].value.unwrap()
    }

    #[test]
    fn the_penalty_is_the_share_of_repeated_n_grams() {
        for (n, completion, expected) in [
            (3, "", 0.0),
            (3, "a b", 0.0),
            (3, "a b c", 0.0),
            (3, "a b c d e", 0.0),
            // a b c, b c a, c a b, a b c: one of four occurs twice.
            (3, "a b c a b c", -0.25),
            (3, "a a a a a", -2.0 / 3.0),
            (2, "a a a a a", -0.75),
            (2, "a b a b", -1.0 / 3.0),
            (1, "a b a b", -0.5),
        ] {
            let found = value(n, -1.0, completion);
            assert!((found - expected).abs() < 1e-12, "{n}-grams of `{completion}`: {found}");
        }
    }

    #[test]
    fn case_and_whitespace_do_not_hide_a_repetition() {
        assert_eq!(value(1, -1.0, "Left  LEFT\n\tleft left"), -0.75);
    }

    #[test]
    fn the_maximum_penalty_scales_the_score() {
        assert_eq!(value(1, -0.5, "a a a a"), -0.375);
    }

    #[test]
    fn a_repetition_is_reported() {
        let input = RewardInput { completion: "a b c a b c", ..RewardInput::default() };
        let scores = Repetition::default().score(&[input]).unwrap();
        assert_eq!(scores[0].reason.as_deref(), Some("1 of 4 3-grams are repeated"));
    }
}
