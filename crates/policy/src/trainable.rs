//! What of a model is trained: all of it, all but some tensors, or an adapter beside it.

use fancy_regex::Regex;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::lora::LoraConfig;
use crate::weights::tensor_shapes;

/// What of a model is trained.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Trainable {
    /// Every tensor.
    #[default]
    All,
    /// Every tensor but those in whose names one of these patterns is found (`freeze_parameters_regex`). A name is the
    /// one that `transformers` gives the tensor, in a text model or within a vision-language one.
    Except(Vec<String>),
    /// A low-rank adapter, while the model stays as it is.
    Lora(LoraConfig),
}

/// Numbers that are trained, and all numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Numbers that are trained.
    pub trainable: usize,
    /// All numbers, an adapter's included.
    pub total: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { trainable, total } = self;
        let share = 100.0 * *trainable as f64 / *total as f64;
        write!(f, "{trainable} of {total} parameters ({share:.2} %)")
    }
}

impl Trainable {
    /// How many numbers of a model of the shape `config` are trained.
    ///
    /// # Errors
    /// A pattern is none, matches no tensor, or nothing is left to train.
    pub fn counts(&self, config: &ModelConfig) -> Result<Counts> {
        let shapes = tensor_shapes(config);
        let numbers = |shape: &Vec<usize>| shape.iter().product::<usize>();
        let total = shapes.values().map(numbers).sum();
        Ok(match self {
            Self::All => Counts { trainable: total, total },
            Self::Except(patterns) => {
                let left = unfrozen(patterns, shapes.keys().map(String::as_str))?;
                let left = left.iter().filter_map(|name| shapes.get(*name));
                Counts { trainable: left.map(numbers).sum(), total }
            }
            Self::Lora(lora) => {
                let trainable = lora.shapes(config).values().map(numbers).sum();
                Counts { trainable, total: total + trainable }
            }
        })
    }
}

/// The names that none of the patterns is found in.
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
        if !names.clone().any(|name| is_meant(&regex, name)) {
            return Err(Error::NothingFrozen { pattern: pattern.clone() });
        }
        compiled.push(regex);
    }
    let left: Vec<&str> =
        names.filter(|name| !compiled.iter().any(|regex| is_meant(regex, name))).collect();
    match left.is_empty() {
        true => Err(Error::AllFrozen),
        false => Ok(left),
    }
}

fn is_meant(regex: &Regex, name: &str) -> bool {
    let within = name.strip_prefix("model.").map(|rest| format!("model.language_model.{rest}"));
    // A pattern that takes too long to decide is found nowhere, which is told.
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
    fn a_pattern_freezes_the_tensors_in_whose_names_it_is_found() {
        assert_eq!(left(&[r"layers\.0\.", "embed"]).unwrap(), [NAMES[2], NAMES[3]]);
        assert_eq!(left(&[r"^model\.language_model\.layers"]).unwrap(), [NAMES[0], NAMES[3]]);
    }

    #[test]
    fn a_pattern_that_freezes_nothing_or_is_none_is_named() {
        let told = left(&["embed", "lm_head"]).unwrap_err().to_string();
        assert!(told.contains("`lm_head`"), "{told}");
        let told = left(&["(embed"]).unwrap_err().to_string();
        assert!(told.contains("`(embed`"), "{told}");
    }

    #[test]
    fn freezing_everything_is_refused() {
        assert!(matches!(left(&["weight"]), Err(Error::AllFrozen)));
    }
}
