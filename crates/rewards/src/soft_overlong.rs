//! DAPO's soft overlong penalty for completions near the maximum length.

use crate::error::Result;
use crate::reward::{Reward, RewardInput, Score};

/// 0 up to `max_length - cache_length` tokens, then linear down to -1 at `max_length`, and -1
/// beyond (DAPO, arXiv 2503.14476, equation 13).
///
/// No score without token ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftOverlong {
    /// Length in tokens, including the stop token, at which the penalty reaches -1.
    pub max_length: usize,
    /// Tokens over which the penalty ramps up; 0 for a step function.
    pub cache_length: usize,
}

impl Reward for SoftOverlong {
    fn name(&self) -> &str {
        "soft_overlong"
    }

    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        Ok(batch.iter().map(|input| self.one(input)).collect())
    }
}

impl SoftOverlong {
    fn one(&self, input: &RewardInput<'_>) -> Score {
        let Some(ids) = input.completion_ids else { return Score::unknown_length() };
        let length = ids.len();
        let threshold = self.max_length.saturating_sub(self.cache_length);
        if length <= threshold {
            return Score { value: Some(0.0), reason: None };
        }
        let value = match length <= self.max_length {
            true => -((length - threshold) as f64) / self.cache_length as f64,
            false => -1.0,
        };
        let reason = format!("{length} tokens, penalized above {threshold}");
        Score { value: Some(value), reason: Some(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(max_length: usize, cache_length: usize, length: usize) -> f64 {
        let ids = vec![1; length];
        let input = RewardInput { completion_ids: Some(&ids), ..RewardInput::default() };
        let reward = SoftOverlong { max_length, cache_length };
        reward.score(&[input]).unwrap()[0].value.unwrap()
    }

    #[test]
    fn the_penalty_is_linear_over_the_cache_length() {
        for (length, expected) in [
            (0, 0.0),
            (79, 0.0),
            (80, 0.0),
            (81, -0.05),
            (85, -0.25),
            (90, -0.5),
            (99, -0.95),
            (100, -1.0),
            (101, -1.0),
            (500, -1.0),
        ] {
            assert_eq!(value(100, 20, length), expected, "{length} tokens");
        }
    }

    #[test]
    fn a_cache_as_long_as_the_maximum_penalizes_from_the_first_token() {
        assert_eq!([0, 5, 10].map(|length| value(10, 10, length)), [0.0, -0.5, -1.0]);
    }

    #[test]
    fn without_a_cache_only_overlong_completions_are_penalized() {
        assert_eq!([10, 11].map(|length| value(10, 0, length)), [0.0, -1.0]);
    }

    #[test]
    fn a_completion_without_token_ids_has_no_score() {
        let input = RewardInput { completion: "so", ..RewardInput::default() };
        let scores = SoftOverlong { max_length: 10, cache_length: 5 }.score(&[input]).unwrap();
        assert_eq!(scores[0].value, None);
        assert!(scores[0].reason.is_some());
    }
}
