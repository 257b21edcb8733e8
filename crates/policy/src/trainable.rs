//! Trainable parameters: all, all except frozen ones, or a LoRA adapter.

use fancy_regex::Regex;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::lora::LoraConfig;
use crate::tensors::tensor_shapes;

/// Which parameters are trained.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Trainable {
    /// Every parameter.
    #[default]
    All,
    /// Every parameter whose name matches none of these patterns (`freeze_parameters_regex`). Names are those of
    /// `transformers`, in a text model or in a vision-language model.
    AllExcept(Vec<String>),
    /// A LoRA adapter; the model is frozen.
    Lora(LoraConfig),
}

/// Numbers of trainable and of all parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCounts {
    /// Trainable parameters.
    pub trainable: usize,
    /// All parameters, including an adapter's.
    pub total: usize,
}

impl std::fmt::Display for ParameterCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { trainable, total } = self;
        let share = 100.0 * *trainable as f64 / *total as f64;
        write!(f, "{trainable} of {total} parameters ({share:.2} %)")
    }
}

impl Trainable {
    /// Whether training uses dropout.
    pub fn has_dropout(&self) -> bool {
        matches!(self, Self::Lora(lora) if lora.lora_dropout > 0.0)
    }

    /// Parameter counts for a model of `config`.
    ///
    /// # Errors
    /// A pattern is invalid or matches no parameter, or nothing is left to train.
    pub fn counts(&self, config: &ModelConfig) -> Result<ParameterCounts> {
        let shapes = tensor_shapes(config);
        let elements = |shape: &Vec<usize>| shape.iter().product::<usize>();
        let total = shapes.values().map(elements).sum();
        Ok(match self {
            Self::All => ParameterCounts { trainable: total, total },
            Self::AllExcept(patterns) => {
                let left = unfrozen(patterns, shapes.keys().map(String::as_str))?;
                let left = left.iter().filter_map(|name| shapes.get(*name));
                ParameterCounts { trainable: left.map(elements).sum(), total }
            }
            Self::Lora(lora) => {
                lora.check_rank(config)?;
                let trainable = lora.shapes(config).values().map(elements).sum();
                ParameterCounts { trainable, total: total + trainable }
            }
        })
    }
}

/// The names that match none of the patterns.
pub(crate) fn unfrozen<'a>(
    patterns: &[String],
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<Vec<&'a str>> {
    let mut compiled = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        let regex = Regex::new(pattern).map_err(|error| Error::FreezePattern {
            pattern: pattern.clone(),
            reason: error.to_string(),
        })?;
        if !names.clone().any(|name| matches(&regex, name)) {
            return Err(Error::FreezeNoMatch { pattern: pattern.clone() });
        }
        compiled.push(regex);
    }
    let left: Vec<&str> =
        names.filter(|name| !compiled.iter().any(|regex| matches(regex, name))).collect();
    match left.is_empty() {
        true => Err(Error::AllFrozen),
        false => Ok(left),
    }
}

fn matches(regex: &Regex, name: &str) -> bool {
    let within = name.strip_prefix("model.").map(|rest| format!("model.language_model.{rest}"));
    // A pattern that exceeds the backtracking limit counts as not matching, which is then reported.
    let found = |name: &str| regex.is_match(name).unwrap_or(false);
    found(name) || within.is_some_and(|name| found(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = [
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.norm.weight",
    ];

    fn left(patterns: &[&str]) -> Result<Vec<&'static str>> {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        unfrozen(&patterns, NAMES.into_iter())
    }

    #[test]
    fn a_pattern_freezes_all_matching_parameters() {
        assert_eq!(left(&[r"layers\.0\.", "embed"]).unwrap(), [NAMES[2], NAMES[3]]);
        assert_eq!(left(&[r"^model\.language_model\.layers"]).unwrap(), [NAMES[0], NAMES[3]]);
    }

    #[test]
    fn unmatched_and_invalid_patterns_are_reported() {
        let message = left(&["embed", "lm_head"]).unwrap_err().to_string();
        assert!(message.contains("`lm_head`"), "{message}");
        let message = left(&["(embed"]).unwrap_err().to_string();
        assert!(message.contains("`(embed`"), "{message}");
    }

    #[test]
    fn freezing_everything_is_rejected() {
        assert!(matches!(left(&["weight"]), Err(Error::AllFrozen)));
    }
}
