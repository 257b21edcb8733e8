//! Sampling of tokens from logits.

mod draw;
mod edits;
mod settings;

use std::sync::Arc;

use crate::error::{Error, Result};
pub(crate) use draw::{Row, draw_rows, prompt_token_logprobs};
pub(crate) use edits::History;
pub use settings::{SamplingBounds, SamplingSettings};

/// Sampling parameters, named as in `transformers` and vLLM. The default samples from the full
/// distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Sample from the `top_k` most likely tokens; 0 disables it.
    pub top_k: usize,
    /// Nucleus sampling: sample from the most likely tokens with this cumulative probability; 1 disables it.
    pub top_p: f64,
    /// Minimum probability of a token relative to the most likely one; 0 disables it.
    pub min_p: f64,
    /// Divides positive logits, and multiplies negative ones, of tokens in the prompt or the completion; 1
    /// disables it.
    pub repetition_penalty: f64,
    /// Subtracted from the logits of tokens in the completion.
    pub presence_penalty: f64,
    /// Subtracted from a token's logit for each of its occurrences in the completion.
    pub frequency_penalty: f64,
    /// Added to the logits of individual tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Sample from these tokens only.
    pub allowed_token_ids: Option<Arc<[u32]>>,
    /// Maximum number of tokens of a completion.
    pub max_new_tokens: usize,
    /// Minimum number of tokens before a stop token may be sampled.
    pub min_new_tokens: usize,
    /// Tokens that end a completion; they are included in it.
    pub stop_ids: Vec<u32>,
    /// Report each token's log-probability at temperature 1 before penalties, and those of so many of the most
    /// likely tokens.
    pub logprobs: Option<usize>,
    /// Report the log-probability of each prompt token after the first, and those of so many of the most likely
    /// tokens. Such a prompt is computed without the prefix cache.
    pub prompt_logprobs: Option<usize>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            allowed_token_ids: None,
            max_new_tokens: 256,
            min_new_tokens: 0,
            stop_ids: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
        }
    }
}

impl SamplingParams {
    /// Greedy decoding.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Validates the parameters with the bounds of OpenAI's API and vLLM.
    ///
    /// # Errors
    /// [`Error::Sampling`] with the first invalid field.
    pub fn check(&self) -> Result<()> {
        let settings = SamplingSettings {
            temperature: Some(self.temperature),
            top_p: Some(self.top_p),
            top_k: None,
            min_p: Some(self.min_p),
            repetition_penalty: Some(self.repetition_penalty),
        };
        settings.check()?;
        for (field, found) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            if !(-2.0..=2.0).contains(&found) {
                return Err(Error::Sampling { field, found, want: "a number from -2 to 2" });
            }
        }
        if let Some((_, bias)) = self.logit_bias.iter().find(|(_, x)| !(-100.0..=100.0).contains(x))
        {
            let (found, want) = (f64::from(*bias), "numbers from -100 to 100");
            return Err(Error::Sampling { field: "logit_bias", found, want });
        }
        if self.allowed_token_ids.as_ref().is_some_and(|ids| ids.is_empty()) {
            return Err(Error::NoAllowedTokens);
        }
        if self.max_new_tokens == 0 {
            let (field, want) = ("max_new_tokens", "1 or more");
            return Err(Error::Sampling { field, found: 0.0, want });
        }
        if self.min_new_tokens > self.max_new_tokens {
            let (field, found) = ("min_new_tokens", self.min_new_tokens as f64);
            return Err(Error::Sampling { field, found, want: "at most `max_new_tokens`" });
        }
        Ok(())
    }

    /// Validates token ids against the vocabulary size. Stop ids beyond the vocabulary are never sampled, so
    /// they are allowed.
    ///
    /// # Errors
    /// [`Error::SamplingId`] with the first invalid id.
    pub fn check_ids(&self, vocabulary: usize) -> Result<()> {
        let biased = self.logit_bias.iter().map(|(id, _)| ("logit_bias", *id));
        let allowed = self.allowed_token_ids.iter().flat_map(|ids| ids.iter());
        let mut ids = biased.chain(allowed.map(|id| ("allowed_token_ids", *id)));
        match ids.find(|(_, id)| *id as usize >= vocabulary) {
            Some((field, id)) => Err(Error::SamplingId { field, id, vocabulary }),
            None => Ok(()),
        }
    }
}

/// A sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    /// The token id.
    pub id: u32,
    /// Natural log-probability under the full softmax at the sampling temperature (at 1 for greedy decoding),
    /// before penalties, bias, top-k, top-p and min-p. NaN if the logits are not finite.
    pub logp: f32,
    /// Requested by [`SamplingParams::logprobs`].
    pub logprobs: Option<TokenLogprobs>,
}

/// Log-probabilities of a position at temperature 1, before penalties.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Of the sampled or prompt token.
    pub logprob: f32,
    /// The most likely tokens, in descending order.
    pub top_logprobs: Vec<(u32, f32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(&mut SamplingParams)) -> String {
        let mut sampling = SamplingParams::default();
        change(&mut sampling);
        sampling.check().unwrap_err().to_string()
    }

    #[test]
    fn out_of_range_parameters_are_rejected_by_name() {
        for bad in [-0.5, f64::NAN, f64::INFINITY] {
            let message = format!("`temperature` must be a number of 0 or more, not {bad}");
            assert_eq!(fault(|s| s.temperature = bad), message);
        }
        for bad in [0.0, 1.5, -1.0, f64::NAN] {
            assert!(fault(|s| s.top_p = bad).starts_with("`top_p`"));
        }
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(fault(|s| s.min_p = bad).starts_with("`min_p`"));
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(fault(|s| s.repetition_penalty = bad).starts_with("`repetition_penalty`"));
        }
        for bad in [-2.1, 2.1, f64::NAN] {
            assert!(fault(|s| s.presence_penalty = bad).starts_with("`presence_penalty`"));
            assert!(fault(|s| s.frequency_penalty = bad).starts_with("`frequency_penalty`"));
        }
        for bad in [100.5, f32::NAN, f32::NEG_INFINITY] {
            assert!(fault(|s| s.logit_bias = vec![(1, 2.0), (2, bad)]).starts_with("`logit_bias`"));
        }
        assert!(fault(|s| s.allowed_token_ids = Some([].into())).contains("allowed_token_ids"));
        assert!(fault(|s| s.max_new_tokens = 0).starts_with("`max_new_tokens`"));
        assert!(fault(|s| s.min_new_tokens = 257).starts_with("`min_new_tokens`"));
    }

    #[test]
    fn the_bounds_are_inclusive() {
        let edge = SamplingParams {
            temperature: 0.0,
            min_p: 1.0,
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            logit_bias: vec![(0, -100.0), (1, 100.0)],
            allowed_token_ids: Some([0].into()),
            max_new_tokens: 1,
            min_new_tokens: 1,
            ..SamplingParams::default()
        };
        assert!(edge.check().is_ok());
    }

    #[test]
    fn ids_outside_the_vocabulary_are_rejected_by_field() {
        let biased =
            SamplingParams { logit_bias: vec![(9, 1.0), (10, 1.0)], ..SamplingParams::default() };
        assert!(biased.check_ids(11).is_ok());
        let message = biased.check_ids(10).unwrap_err().to_string();
        assert_eq!(
            message,
            "`logit_bias` has the token id 10, which is outside the vocabulary of 10"
        );
        let allowed = Some([3, 12].into());
        let allowed = SamplingParams { allowed_token_ids: allowed, ..SamplingParams::default() };
        let message = allowed.check_ids(12).unwrap_err().to_string();
        assert!(message.starts_with("`allowed_token_ids` has the token id 12"), "{message}");
    }
}
