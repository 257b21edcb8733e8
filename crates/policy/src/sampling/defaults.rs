//! How a model likes to be sampled, where a request says nothing.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::gguf;
use crate::sampling::Sampling;
use crate::tokenizer::GENERATION_CONFIG_FILE as FILE;

/// Sampling of requests that leave it to the server; fields bear the names of vLLM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingDefaults {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f64,
    /// Draw among the likeliest tokens that together have this probability; 1 means all.
    pub top_p: f64,
    /// Draw among so many of the likeliest tokens; 0 means all.
    pub top_k: usize,
    /// Draw among tokens with at least this share of the likeliest one's probability; 0 means all.
    pub min_p: f64,
    /// Divides the positive logits, and multiplies the negative ones, of tokens that have occurred.
    pub repetition_penalty: f64,
}

impl Default for SamplingDefaults {
    /// OpenAI's: draw from the whole distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl SamplingDefaults {
    /// What `generation_config.json` of the model in `dir`, a folder or a GGUF file, says, else OpenAI's defaults, as vLLM
    /// takes them: `do_sample` changes nothing.
    ///
    /// # Errors
    /// The file cannot be read, or says what cannot be.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = gguf::folder(dir)?.join(FILE);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let file: Value = serde_json::from_slice(&text).map_err(Error::json(&path))?;
        Self::read(&file, &path)
    }

    /// Sampling as these say, up to `max_new_tokens` or one of the ids `stop_ids`.
    #[must_use]
    pub fn sampling(&self, max_new_tokens: usize, stop_ids: Vec<u32>) -> Sampling {
        let Self { temperature, top_p, top_k, min_p, repetition_penalty } = *self;
        let known = Sampling { max_new_tokens, stop_ids, ..Sampling::default() };
        Sampling { temperature, top_p, top_k, min_p, repetition_penalty, ..known }
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
            // -1, one of the ways to say all, saturates to 0, the other.
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
    fn the_models_own_numbers_are_taken() {
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
    fn a_model_that_says_nothing_is_sampled_from_the_whole_distribution() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(SamplingDefaults::from_dir(dir.path()).unwrap(), SamplingDefaults::default());
        std::fs::write(dir.path().join(FILE), r#"{"top_k": -1}"#).unwrap();
        assert_eq!(SamplingDefaults::from_dir(dir.path()).unwrap(), SamplingDefaults::default());
    }

    #[test]
    fn a_number_that_cannot_be_names_its_field() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), r#"{"top_p": "much"}"#).unwrap();
        let told = SamplingDefaults::from_dir(dir.path()).unwrap_err().to_string();
        assert!(told.starts_with("`top_p` in `") && told.contains("`\"much\"`"), "{told}");
    }
}
