//! The cosine length reward: favors short correct answers and long wrong ones.

use std::f64::consts::PI;

use crate::accuracy::Accuracy;
use crate::error::Result;
use crate::reward::{Reward, RewardInput, Score};

/// Cosine interpolation of the reward from length 0 to `max_len` tokens, with separate values for
/// correct and wrong answers; constant beyond `max_len`.
///
/// `max_len_value - (max_len_value - min_len_value) * (1 + cos(pi * length / max_len)) / 2`
/// ("Demystifying Long Chain-of-Thought Reasoning", arXiv 2502.03373; names and defaults are
/// ms-swift's). An answer is correct if its accuracy is 1. No score without an accuracy or without
/// token ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosine {
    /// Reward of a wrong answer at length 0.
    pub min_len_value_wrong: f64,
    /// Reward of a wrong answer at `max_len` tokens.
    pub max_len_value_wrong: f64,
    /// Reward of a correct answer at length 0.
    pub min_len_value_correct: f64,
    /// Reward of a correct answer at `max_len` tokens.
    pub max_len_value_correct: f64,
    /// Length in tokens, including the stop token, at which the curve ends.
    pub max_len: usize,
    /// What an answer is correct by.
    pub accuracy: Accuracy,
}

impl Cosine {
    /// ms-swift's defaults with a curve up to `max_len` tokens.
    pub fn new(max_len: usize) -> Self {
        Self {
            min_len_value_wrong: -0.5,
            max_len_value_wrong: 0.0,
            min_len_value_correct: 1.0,
            max_len_value_correct: 0.5,
            max_len,
            accuracy: Accuracy::default(),
        }
    }

    fn one(&self, input: &RewardInput<'_>, accuracy: Score) -> Score {
        let Some(ids) = input.completion_ids else { return Score::unknown_length() };
        let Some(accuracy_value) = accuracy.value else { return accuracy };
        let correct = accuracy_value >= 1.0;
        let (short, long) = match correct {
            true => (self.min_len_value_correct, self.max_len_value_correct),
            false => (self.min_len_value_wrong, self.max_len_value_wrong),
        };
        let progress = (ids.len() as f64 / self.max_len.max(1) as f64).min(1.0);
        let value = long - (long - short) * (1.0 + (PI * progress).cos()) / 2.0;
        let answer = if correct { "correct" } else { "wrong" };
        Score { value: Some(value), reason: Some(format!("{answer} in {} tokens", ids.len())) }
    }
}

impl Reward for Cosine {
    fn name(&self) -> &str {
        "cosine"
    }

    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        let accuracies = self.accuracy.score(batch)?;
        let pairs = batch.iter().zip(accuracies);
        Ok(pairs.map(|(input, accuracy)| self.one(input, accuracy)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(completion: &str, length: usize) -> Score {
        let ids = vec![1; length];
        let completion_ids = Some(ids.as_slice());
        let input =
            RewardInput { solution: "B", completion, completion_ids, ..RewardInput::default() };
        Cosine::new(100).score(&[input]).unwrap().remove(0)
    }

    fn expect(completion: &str, table: [(usize, f64); 6]) {
        for (length, expected) in table {
            let found = score(completion, length).value.unwrap();
            assert!((found - expected).abs() < 1e-6, "{length} tokens: {found}, not {expected}");
        }
    }

    #[test]
    fn the_reward_of_a_correct_answer_falls_with_its_length() {
        // cos(pi / 4) = 0.707107
        expect(
            "<answer>B</answer>",
            [(0, 1.0), (25, 0.926777), (50, 0.75), (75, 0.573223), (100, 0.5), (300, 0.5)],
        );
    }

    #[test]
    fn the_penalty_of_a_wrong_answer_shrinks_with_its_length() {
        expect(
            "<answer>A</answer>",
            [(0, -0.5), (25, -0.426777), (50, -0.25), (75, -0.073223), (100, 0.0), (300, 0.0)],
        );
    }

    #[test]
    fn without_accuracy_or_tokens_there_is_no_score() {
        let completion = "<answer>B</answer>";
        let tokenless = RewardInput { solution: "B", completion, ..RewardInput::default() };
        let ids = Some(&[1_u32, 2][..]);
        let neither = RewardInput {
            solution: "left",
            completion,
            completion_ids: ids,
            ..RewardInput::default()
        };
        let scores = Cosine::new(10).score(&[tokenless, neither]).unwrap();
        assert_eq!([scores[0].value, scores[1].value], [None, None]);
    }
}
