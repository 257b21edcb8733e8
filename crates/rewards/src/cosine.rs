//! A reward of right answers that are short, and of wrong ones that went on thinking.

use std::f64::consts::PI;

use crate::accuracy::Accuracy;
use crate::error::Result;
use crate::reward::{Reward, Score, Scored};

/// Goes along half a cosine from one value at length 0 to another at `max_len` tokens, on one
/// curve for right answers and on another for wrong ones; beyond `max_len` the value stays.
///
/// `max_len_value - (max_len_value - min_len_value) * (1 + cos(pi * length / max_len)) / 2`
/// ("Demystifying Long Chain-of-Thought Reasoning", arXiv 2502.03373; names and defaults are
/// ms-swift's). An answer is right if its accuracy is the full point. Where there is no accuracy, or
/// the tokens are not known, there is no score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosine {
    /// Value of a wrong answer of no length.
    pub min_len_value_wrong: f64,
    /// Value of a wrong answer of `max_len` tokens.
    pub max_len_value_wrong: f64,
    /// Value of a right answer of no length.
    pub min_len_value_correct: f64,
    /// Value of a right answer of `max_len` tokens.
    pub max_len_value_correct: f64,
    /// Tokens at the end of the curve; the stop token counts.
    pub max_len: usize,
}

impl Cosine {
    /// ms-swift's values with a curve of `max_len` tokens.
    pub fn new(max_len: usize) -> Self {
        Self {
            min_len_value_wrong: -0.5,
            max_len_value_wrong: 0.0,
            min_len_value_correct: 1.0,
            max_len_value_correct: 0.5,
            max_len,
        }
    }

    fn one(&self, scored: &Scored<'_>, accuracy: Score) -> Score {
        let Some(ids) = scored.completion_ids else { return Score::unknown_length() };
        let Some(accuracy_value) = accuracy.value else { return accuracy };
        let right = accuracy_value >= 1.0;
        let (short, long) = match right {
            true => (self.min_len_value_correct, self.max_len_value_correct),
            false => (self.min_len_value_wrong, self.max_len_value_wrong),
        };
        let progress = (ids.len() as f64 / self.max_len.max(1) as f64).min(1.0);
        let value = long - (long - short) * (1.0 + (PI * progress).cos()) / 2.0;
        let answer = if right { "right" } else { "wrong" };
        Score { value: Some(value), why: Some(format!("{answer} in {} tokens", ids.len())) }
    }
}

impl Reward for Cosine {
    fn name(&self) -> &str {
        "cosine"
    }

    fn score(&self, batch: &[Scored<'_>]) -> Result<Vec<Score>> {
        let accuracies = Accuracy.score(batch)?;
        let scored = batch.iter().zip(accuracies);
        Ok(scored.map(|(scored, accuracy)| self.one(scored, accuracy)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(completion: &str, length: usize) -> Score {
        let ids = vec![1; length];
        let completion_ids = Some(ids.as_slice());
        let scored = Scored { solution: "B", completion, completion_ids, ..Scored::default() };
        Cosine::new(100).score(&[scored]).unwrap().remove(0)
    }

    fn expect(completion: &str, table: [(usize, f64); 6]) {
        for (length, expected) in table {
            let found = score(completion, length).value.unwrap();
            assert!((found - expected).abs() < 1e-6, "{length} tokens: {found}, not {expected}");
        }
    }

    #[test]
    fn a_right_answer_is_worth_less_the_longer_it_is() {
        // cos(pi / 4) = 0.707107
        expect(
            "<answer>B</answer>",
            [(0, 1.0), (25, 0.926777), (50, 0.75), (75, 0.573223), (100, 0.5), (300, 0.5)],
        );
    }

    #[test]
    fn a_wrong_answer_is_punished_less_the_longer_it_is() {
        expect(
            "<answer>A</answer>",
            [(0, -0.5), (25, -0.426777), (50, -0.25), (75, -0.073223), (100, 0.0), (300, 0.0)],
        );
    }

    #[test]
    fn without_accuracy_or_tokens_there_is_no_score() {
        let completion = "<answer>B</answer>";
        let tokenless = Scored { solution: "B", completion, ..Scored::default() };
        let ids = Some(&[1_u32, 2][..]);
        let neither =
            Scored { solution: "left", completion, completion_ids: ids, ..Scored::default() };
        let scores = Cosine::new(10).score(&[tokenless, neither]).unwrap();
        assert_eq!([scores[0].value, scores[1].value], [None, None]);
    }
}
