//! Sampling settings as they are given: in options, requests, the settings of a run and `generation_config.json`.

use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::gguf;
use crate::sampling::SamplingParams;
use crate::tokenizer::GENERATION_CONFIG_FILE as FILE;

/// How tokens are sampled, named as in `transformers` and vLLM; a setting that is not given is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct SamplingSettings {
    /// Sampling temperature; 0 is greedy [default: 0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "T"))]
    pub temperature: Option<f64>,
    /// Nucleus sampling: sample from the most likely tokens whose probabilities sum to P; 1 disables it [default: 1].
    #[cfg_attr(feature = "clap", arg(long, value_name = "P"))]
    pub top_p: Option<f64>,
    /// Sample from the K most likely tokens; 0 or -1 disables it [default: 0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "K"))]
    pub top_k: Option<i64>,
    /// Minimum probability of a token relative to the most likely one; 0 disables it [default: 0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "P"))]
    pub min_p: Option<f64>,
    /// Divides positive logits, and multiplies negative ones, of tokens in the prompt or the completion; 1 disables
    /// it [default: 1].
    #[cfg_attr(feature = "clap", arg(long, value_name = "PENALTY"))]
    pub repetition_penalty: Option<f64>,
}

/// The allowed values of a sampling setting, with the bounds of OpenAI's API and vLLM.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingBounds {
    /// The setting.
    pub name: &'static str,
    /// Its values.
    pub range: RangeInclusive<f64>,
    /// Whether they are integers.
    pub is_integer: bool,
    /// What a message says is expected.
    pub want: &'static str,
}

impl SamplingBounds {
    /// Whether the value is allowed.
    pub fn contains(&self, value: f64) -> bool {
        self.range.contains(&value) && (!self.is_integer || value.fract() == 0.0)
    }
}

const fn bounds(
    name: &'static str,
    range: RangeInclusive<f64>,
    want: &'static str,
) -> SamplingBounds {
    SamplingBounds { name, range, is_integer: false, want }
}

impl SamplingSettings {
    /// The bounds of `temperature`.
    pub const TEMPERATURE: SamplingBounds =
        bounds("temperature", 0.0..=f64::MAX, "a number of 0 or more");
    /// The bounds of `top_p`.
    pub const TOP_P: SamplingBounds =
        bounds("top_p", f64::MIN_POSITIVE..=1.0, "a number above 0 and at most 1");
    /// The bounds of `top_k`.
    pub const TOP_K: SamplingBounds = SamplingBounds {
        name: "top_k",
        range: -1.0..=u32::MAX as f64,
        is_integer: true,
        want: "an integer, 0 or -1 for all tokens",
    };
    /// The bounds of `min_p`.
    pub const MIN_P: SamplingBounds = bounds("min_p", 0.0..=1.0, "a number from 0 to 1");
    /// The bounds of `repetition_penalty`.
    pub const REPETITION_PENALTY: SamplingBounds =
        bounds("repetition_penalty", f64::MIN_POSITIVE..=f64::MAX, "a number above 0");

    /// Each setting that is given, with its bounds.
    pub fn given(&self) -> impl Iterator<Item = (SamplingBounds, f64)> {
        let all = [
            (Self::TEMPERATURE, self.temperature),
            (Self::TOP_P, self.top_p),
            (Self::TOP_K, self.top_k.map(|k| k as f64)),
            (Self::MIN_P, self.min_p),
            (Self::REPETITION_PENALTY, self.repetition_penalty),
        ];
        all.into_iter().filter_map(|(bounds, value)| Some((bounds, value?)))
    }

    /// Checks the settings against their bounds.
    ///
    /// # Errors
    /// [`Error::Sampling`] with the first invalid one.
    pub fn check(&self) -> Result<()> {
        match self.given().find(|(bounds, value)| !bounds.contains(*value)) {
            Some((SamplingBounds { name: field, want, .. }, found)) => {
                Err(Error::Sampling { field, found, want })
            }
            None => Ok(()),
        }
    }

    /// These settings, those of `other` where they are not given.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            temperature: self.temperature.or(other.temperature),
            top_p: self.top_p.or(other.top_p),
            top_k: self.top_k.or(other.top_k),
            min_p: self.min_p.or(other.min_p),
            repetition_penalty: self.repetition_penalty.or(other.repetition_penalty),
        }
    }

    /// The parameters `params`, changed where a setting is given.
    #[must_use]
    pub fn applied_to(self, params: SamplingParams) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature.unwrap_or(params.temperature),
            top_p: self.top_p.unwrap_or(params.top_p),
            // -1 also disables top-k.
            top_k: self.top_k.map_or(params.top_k, |k| usize::try_from(k).unwrap_or(0)),
            min_p: self.min_p.unwrap_or(params.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(params.repetition_penalty),
            ..params
        }
    }

    /// The settings in `generation_config.json` of the model in `dir`, a folder or a GGUF file. As in vLLM, `do_sample` is
    /// ignored.
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

    fn read(file: &Value, path: &Path) -> Result<Self> {
        let number = |bounds: SamplingBounds| {
            let found = &file[bounds.name];
            match found.as_f64() {
                None if found.is_null() => Ok(None),
                Some(number) if bounds.contains(number) => Ok(Some(number)),
                _ => Err(Error::SamplingDefault {
                    path: path.to_owned(),
                    field: bounds.name,
                    found: found.to_string(),
                    want: bounds.want,
                }),
            }
        };
        Ok(Self {
            temperature: number(Self::TEMPERATURE)?,
            top_p: number(Self::TOP_P)?,
            top_k: number(Self::TOP_K)?.map(|k| k as i64),
            min_p: number(Self::MIN_P)?,
            repetition_penalty: number(Self::REPETITION_PENALTY)?,
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
        let settings = SamplingSettings::from_dir(dir.path()).unwrap();
        let expected = SamplingSettings {
            temperature: Some(0.7),
            top_p: Some(0.8),
            top_k: Some(20),
            min_p: None,
            repetition_penalty: Some(1.05),
        };
        assert_eq!(settings, expected);
        let given = SamplingSettings { top_k: Some(-1), ..SamplingSettings::default() };
        let params = given.or(settings).applied_to(SamplingParams::default());
        assert_eq!((params.temperature, params.top_k, params.min_p), (0.7, 0, 0.0));
        assert_eq!((params.top_p, params.repetition_penalty), (0.8, 1.05));
    }

    #[test]
    fn without_a_generation_config_the_full_distribution_is_sampled() {
        let dir = tempfile::tempdir().unwrap();
        let params = || {
            let settings = SamplingSettings::from_dir(dir.path()).unwrap();
            settings.applied_to(SamplingParams::default())
        };
        assert_eq!(params(), SamplingParams::default());
        std::fs::write(dir.path().join(FILE), r#"{"top_k": -1}"#).unwrap();
        assert_eq!(params(), SamplingParams::default());
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_field() {
        let dir = tempfile::tempdir().unwrap();
        for (file, field, found) in [
            (r#"{"top_p": "much"}"#, "top_p", "`\"much\"`"),
            (r#"{"top_k": 1.5}"#, "top_k", "`1.5`"),
            (r#"{"min_p": 2}"#, "min_p", "`2`"),
        ] {
            std::fs::write(dir.path().join(FILE), file).unwrap();
            let message = SamplingSettings::from_dir(dir.path()).unwrap_err().to_string();
            let start = format!("`{field}` in `");
            assert!(message.starts_with(&start) && message.contains(found), "{message}");
        }
    }

    #[test]
    fn a_setting_out_of_bounds_is_named() {
        let all = [
            ("temperature", "-0.5"),
            ("temperature", "inf"),
            ("top_p", "0"),
            ("top_k", "-2"),
            ("min_p", "1.1"),
            ("repetition_penalty", "0"),
        ];
        for (name, value) in all {
            let number: f64 = value.parse().unwrap();
            let mut given = SamplingSettings::default();
            match name {
                "temperature" => given.temperature = Some(number),
                "top_p" => given.top_p = Some(number),
                "top_k" => given.top_k = Some(number as i64),
                "min_p" => given.min_p = Some(number),
                _ => given.repetition_penalty = Some(number),
            }
            let message = given.check().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{name}` must be ")), "{message}");
        }
        assert!(SamplingSettings { top_k: Some(-1), ..Default::default() }.check().is_ok());
    }
}
