//! How tokens are drawn from logits.

mod defaults;
mod draw;
mod edits;

use std::sync::Arc;

use crate::error::{Error, Result};
pub use defaults::SamplingDefaults;
pub(crate) use draw::{History, Row, draw_rows};

/// How tokens are drawn. Fields bear the names of `transformers` and vLLM; the default draws from
/// the whole distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f64,
    /// Draw among so many of the likeliest tokens; 0 means all.
    pub top_k: usize,
    /// Draw among the likeliest tokens that together have this probability; 1 means all.
    pub top_p: f64,
    /// Draw among tokens with at least this share of the likeliest one's probability; 0 means all.
    pub min_p: f64,
    /// Divides the positive logits, and multiplies the negative ones, of tokens that the prompt or
    /// the completion has; 1 leaves them.
    pub repetition_penalty: f64,
    /// Taken from the logits of tokens that the completion has.
    pub presence_penalty: f64,
    /// Taken from the logits of tokens once for each time that the completion has them.
    pub frequency_penalty: f64,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Draw among these tokens only.
    pub allowed_token_ids: Option<Arc<[u32]>>,
    /// Most tokens of a completion.
    pub max_new_tokens: usize,
    /// No stop token is drawn before a completion has so many tokens.
    pub min_new_tokens: usize,
    /// Tokens that end a completion; they are part of it.
    pub stop_ids: Vec<u32>,
    /// Report each token's log-probability at temperature 1 before any penalty, and so many of the
    /// likeliest tokens beside it.
    pub logprobs: Option<usize>,
}

impl Default for Sampling {
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
        }
    }
}

impl Sampling {
    /// The likeliest token always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Refuses numbers that mean nothing. The bounds are those of OpenAI's API and vLLM.
    ///
    /// # Errors
    /// [`Error::Sampling`] names the first such field.
    pub fn check(&self) -> Result<()> {
        const ANY: f64 = f64::MAX;
        let above_0 = f64::MIN_POSITIVE;
        for (field, found, range, want) in [
            ("temperature", self.temperature, 0.0..=ANY, "a number of 0 or more"),
            ("top_p", self.top_p, above_0..=1.0, "a number above 0 and at most 1"),
            ("min_p", self.min_p, 0.0..=1.0, "a number from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty, above_0..=ANY, "a number above 0"),
            ("presence_penalty", self.presence_penalty, -2.0..=2.0, "a number from -2 to 2"),
            ("frequency_penalty", self.frequency_penalty, -2.0..=2.0, "a number from -2 to 2"),
        ] {
            if !range.contains(&found) {
                return Err(Error::Sampling { field, found, want });
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

    /// Refuses ids that a model with so many tokens does not have. Stop ids beyond the vocabulary are
    /// never drawn and do no harm.
    ///
    /// # Errors
    /// [`Error::SamplingId`] names the first field with such an id.
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

/// A drawn token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its natural log-probability under the full softmax at the sampling temperature (at 1 for
    /// temperature 0), whatever penalties, bias, top-k, top-p and min-p made of it.
    pub logp: f32,
    /// What [`Sampling::logprobs`] asks for.
    pub report: Option<Report>,
}

/// Log-probabilities at temperature 1, before any penalty.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Of the drawn token.
    pub logprob: f32,
    /// The likeliest tokens, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(&mut Sampling)) -> String {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        sampling.check().unwrap_err().to_string()
    }

    #[test]
    fn a_number_out_of_its_range_is_refused_by_name() {
        for bad in [-0.5, f64::NAN, f64::INFINITY] {
            let want = "want a number of 0 or more";
            assert_eq!(fault(|s| s.temperature = bad), format!("`temperature` is {bad}, {want}"));
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
    fn the_bounds_themselves_are_taken() {
        let edge = Sampling {
            temperature: 0.0,
            min_p: 1.0,
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            logit_bias: vec![(0, -100.0), (1, 100.0)],
            allowed_token_ids: Some([0].into()),
            max_new_tokens: 1,
            min_new_tokens: 1,
            ..Sampling::default()
        };
        assert!(edge.check().is_ok());
    }

    #[test]
    fn an_id_that_the_model_does_not_have_is_refused_by_field() {
        let biased = Sampling { logit_bias: vec![(9, 1.0), (10, 1.0)], ..Sampling::default() };
        assert!(biased.check_ids(11).is_ok());
        let told = biased.check_ids(10).unwrap_err().to_string();
        assert_eq!(told, "`logit_bias` has the id 10, want ids below 10, the model's vocabulary");
        let allowed = Some([3, 12].into());
        let allowed = Sampling { allowed_token_ids: allowed, ..Sampling::default() };
        let told = allowed.check_ids(12).unwrap_err().to_string();
        assert!(told.starts_with("`allowed_token_ids` has the id 12"), "{told}");
    }
}
