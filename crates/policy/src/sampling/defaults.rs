//! A model's default sampling parameters, from `generation_config.json`.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::gguf;
use crate::sampling::SamplingParams;
use crate::tokenizer::GENERATION_CONFIG_FILE as FILE;

/// Sampling defaults for requests that do not set a parameter; named as in vLLM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingDefaults {
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Nucleus sampling: cumulative probability of the tokens sampled from; 1 disables it.
    pub top_p: f64,
    /// Sample from the `top_k` most likely tokens; 0 disables it.
    pub top_k: usize,
    /// Minimum probability of a token relative to the most likely one; 0 disables it.
    pub min_p: f64,
    /// Divides positive logits, and multiplies negative ones, of tokens in the prompt or the completion; 1
    /// disables it.
    pub repetition_penalty: f64,
}

impl Default for SamplingDefaults {
    /// OpenAI's defaults: sample from the full distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl SamplingDefaults {
    /// The values in `generation_config.json` of the model in `dir`, a folder or a GGUF file, with OpenAI's defaults
    /// for missing ones. As in vLLM, `do_sample` is ignored.
    ///
    /// # Errors
    /// The file cannot be read or has an invalid value.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = gguf::folder(dir)?.join(FILE);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let file: Value = serde_json::from_slice(&text).map_err(Error::json(&path))?;
        Self::read(&file, &path)
    }

    /// Sampling parameters with these defaults, and the given length limit and stop tokens.
    #[must_use]
    pub fn sampling(&self, max_new_tokens: usize, stop_ids: Vec<u32>) -> SamplingParams {
        let Self { temperature, top_p, top_k, min_p, repetition_penalty } = *self;
        let known = SamplingParams { max_new_tokens, stop_ids, ..SamplingParams::default() };
        SamplingParams { temperature, top_p, top_k, min_p, repetition_penalty, ..known }
    }

    fn read(file: &Value, path: &Path) -> Result<Self> {
        let number = |field, want, allowed: fn(f64) -> bool| {
            let found = &file[field];
            match found.as_f64() {
                None if found.is_null() => Ok(None),
                Some(number) if allowed(number) => Ok(Some(number)),
                _ => {
                    let (path, found) = (path.to_owned(), found.to_string());
                    Err(Error::SamplingDefault { path, field, found, want })
                }
            }
        };
        let share = |number| number > 0.0 && number <= 1.0;
        let open = Self::default();
        let temperature = number("temperature", "a number of 0 or more", |t| t >= 0.0)?;
        let top_p = number("top_p", "a number above 0 and at most 1", share)?;
        let min_p = number("min_p", "a number from 0 to 1", |p| (0.0..=1.0).contains(&p))?;
        let penalty = number("repetition_penalty", "a number above 0", |p| p > 0.0)?;
        let whole = |k: f64| k >= -1.0 && k.fract() == 0.0 && k < f64::from(u32::MAX);
        let top_k = number("top_k", "an integer, 0 or -1 for all tokens", whole)?;
        Ok(Self {
            temperature: temperature.unwrap_or(open.temperature),
            top_p: top_p.unwrap_or(open.top_p),
            // -1 also disables top-k; it saturates to 0.
            top_k: top_k.map_or(open.top_k, |k| k as usize),
            min_p: min_p.unwrap_or(open.min_p),
            repetition_penalty: penalty.unwrap_or(open.repetition_penalty),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_models_generation_config_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = json!({"do_sample": true, "repetition_penalty": 1.05, "temperature": 0.7,
            "top_p": 0.8, "top_k": 20, "eos_token_id": [2, 0]});
        std::fs::write(dir.path().join(FILE), file.to_string()).unwrap();
        assert_eq!(
            SamplingDefaults::from_dir(dir.path()).unwrap(),
            SamplingDefaults {
                temperature: 0.7,
                top_p: 0.8,
                top_k: 20,
                min_p: 0.0,
                repetition_penalty: 1.05
            }
        );
    }

    #[test]
    fn without_a_generation_config_the_full_distribution_is_sampled() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(SamplingDefaults::from_dir(dir.path()).unwrap(), SamplingDefaults::default());
        std::fs::write(dir.path().join(FILE), r#"{"top_k": -1}"#).unwrap();
        assert_eq!(SamplingDefaults::from_dir(dir.path()).unwrap(), SamplingDefaults::default());
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_field() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), r#"{"top_p": "much"}"#).unwrap();
        let message = SamplingDefaults::from_dir(dir.path()).unwrap_err().to_string();
        assert!(message.starts_with("`top_p` in `") && message.contains("`\"much\"`"), "{message}");
    }
}
