//! DAPO's soft punishment of completions that come close to the longest length allowed.

use crate::error::Result;
use crate::reward::{Reward, Score, Scored};

/// 0 up to `max_length - cache_length` tokens, then falling in a straight line to -1 at
/// `max_length`, and -1 beyond (DAPO, arXiv 2503.14476, equation 13).
///
/// A completion of unknown tokens has no score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftOverlong {
    /// Tokens from which the punishment is full; the stop token counts.
    pub max_length: usize,
    /// Tokens over which it grows; 0 for a step.
    pub cache_length: usize,
}

impl Reward for SoftOverlong {
    fn name(&self) -> &str {
        "soft_overlong"
    }

    fn score(&self, batch: &[Scored<'_>]) -> Result<Vec<Score>> {
        Ok(batch.iter().map(|scored| self.one(scored)).collect())
    }
}

impl SoftOverlong {
    fn one(&self, scored: &Scored<'_>) -> Score {
        let Some(ids) = scored.completion_ids else { return Score::unknown_length() };
        let length = ids.len();
        let free = self.max_length.saturating_sub(self.cache_length);
        if length <= free {
            return Score { value: Some(0.0), why: None };
        }
        let value = match length <= self.max_length {
            true => -((length - free) as f64) / self.cache_length as f64,
            false => -1.0,
        };
        Score { value: Some(value), why: Some(format!("{length} tokens, {free} are free")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(max_length: usize, cache_length: usize, length: usize) -> f64 {
        let ids = vec![1; length];
        let scored = Scored { completion_ids: Some(&ids), ..Scored::default() };
        let reward = SoftOverlong { max_length, cache_length };
        reward.score(&[scored]).unwrap()[0].value.unwrap()
    }

    #[test]
    fn the_punishment_grows_in_a_straight_line_over_the_cache() {
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
    fn a_cache_as_long_as_the_completion_punishes_from_the_first_token() {
        assert_eq!([0, 5, 10].map(|length| value(10, 10, length)), [0.0, -0.5, -1.0]);
    }

    #[test]
    fn without_a_cache_only_what_is_too_long_is_punished() {
        assert_eq!([10, 11].map(|length| value(10, 0, length)), [0.0, -1.0]);
    }

    #[test]
    fn a_completion_of_unknown_tokens_has_no_score() {
        let scored = Scored { completion: "so", ..Scored::default() };
        let scores = SoftOverlong { max_length: 10, cache_length: 5 }.score(&[scored]).unwrap();
        assert_eq!(scores[0].value, None);
        assert!(scores[0].why.is_some());
    }
}
