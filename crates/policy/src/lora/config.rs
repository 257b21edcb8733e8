//! Parses an adapter's `adapter_config.json`.

use std::path::Path;

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::{AdapterFault, CONFIG_FILE};
use crate::config::ConfigFault;
use crate::error::{Error, Result};

/// Settings without effect on a trained adapter.
const TRAINING_ONLY: [&str; 13] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "eva_config",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "ensure_weight_tying",
];

/// Settings that are parsed.
const SUPPORTED: [&str; 16] = [
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_dora",
    "use_rslora",
];

/// An adapter's configuration.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    pub(super) base_model: Option<String>,
    pub(super) rank: usize,
    alpha: f64,
    rank_stabilized: bool,
    rank_pattern: Vec<(Regex, f64)>,
    alpha_pattern: Vec<(Regex, f64)>,
    pub(super) targets: Targets,
    pub(super) excluded: Option<Targets>,
    pub(super) layers: Option<Vec<u64>>,
    pub(super) modules_to_save: Vec<String>,
}

/// A selection of modules.
#[derive(Debug)]
pub(super) enum Targets {
    /// All linear modules except the LM head.
    AllLinear,
    /// Modules whose name ends with one of these.
    Names(Vec<String>),
    /// Modules whose full name matches.
    Pattern(Regex),
}

impl AdapterConfig {
    pub(super) fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let value: Map<String, Value> =
            serde_json::from_slice(&text).map_err(Error::json(&path))?;
        Self::read(&value).map_err(|faults| Error::Adapter { path, faults })
    }

    fn read(value: &Map<String, Value>) -> Result<Self, Vec<AdapterFault>> {
        let mut fields = Fields { value, faults: Vec::new() };
        fields.reject_unsupported();
        let config = Self {
            base_model: fields.text("base_model_name_or_path"),
            rank: fields.rank(),
            alpha: fields.alpha(),
            rank_stabilized: fields.flag("use_rslora"),
            rank_pattern: fields.patterns("rank_pattern"),
            alpha_pattern: fields.patterns("alpha_pattern"),
            targets: fields.targets("target_modules").unwrap_or_else(|| {
                fields.faults.push(ConfigFault::missing("target_modules").into());
                Targets::AllLinear
            }),
            excluded: fields.targets("exclude_modules"),
            layers: fields.layers(),
            modules_to_save: fields.names("modules_to_save"),
        };
        if fields.faults.is_empty() { Ok(config) } else { Err(fields.faults) }
    }

    /// The rank of a module.
    pub(super) fn rank_of(&self, module: &str) -> usize {
        matching(&self.rank_pattern, module).map_or(self.rank, |rank| rank as usize)
    }

    /// The scale of a module's update.
    pub(super) fn scale_of(&self, module: &str) -> f64 {
        let alpha = matching(&self.alpha_pattern, module).unwrap_or(self.alpha);
        let rank = self.rank_of(module) as f64;
        alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}

/// The value of the first pattern that matches a module's name.
fn matching(patterns: &[(Regex, f64)], module: &str) -> Option<f64> {
    let found = patterns.iter().find(|(pattern, _)| pattern.is_match(module).unwrap_or(false));
    found.map(|(_, value)| *value)
}

struct Fields<'a> {
    value: &'a Map<String, Value>,
    faults: Vec<AdapterFault>,
}

impl<'a> Fields<'a> {
    /// A setting; `null` counts as absent.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    fn wrong(&mut self, field: &str, found: &Value, want: &'static str) {
        self.faults.push(ConfigFault::wrong(field, display(found), want).into());
    }

    fn reject_unsupported(&mut self) {
        match self.get("peft_type") {
            Some(kind) if kind.as_str() == Some("LORA") => {}
            Some(kind) => self.unsupported("peft_type", kind, "use `LORA`"),
            None => self.faults.push(ConfigFault::missing("peft_type").into()),
        }
        for (field, why) in [
            ("use_dora", "merge it with `peft`'s `merge_and_unload`"),
            ("fan_in_fan_out", "use weights of shape (outputs, inputs)"),
            ("lora_bias", "use adapters without a bias"),
        ] {
            if let Some(found) = self.get(field).filter(|found| found.as_bool() != Some(false)) {
                self.unsupported(field, found, why);
            }
        }
        if let Some(found) = self.get("bias").filter(|found| found.as_str() != Some("none")) {
            self.unsupported("bias", found, "use `none`");
        }
        if let Some(found) = self.get("init_lora_weights") {
            // The other methods modify the base model's weights.
            let plain = matches!(found.as_str(), Some("gaussian" | "eva" | "orthogonal"));
            if !found.is_boolean() && !plain {
                self.unsupported(
                    "init_lora_weights",
                    found,
                    "use an initialization that keeps the base weights",
                );
            }
        }
        for (field, found) in self.value {
            let known =
                SUPPORTED.contains(&field.as_str()) || TRAINING_ONLY.contains(&field.as_str());
            if !known && is_set(found) {
                let (field, found) = (field.clone(), display(found));
                self.faults.push(AdapterFault::Unknown { field, found });
            }
        }
    }

    fn unsupported(&mut self, field: &str, found: &Value, why: &'static str) {
        self.faults.push(ConfigFault::unsupported(field, display(found), why).into());
    }

    fn text(&self, field: &str) -> Option<String> {
        self.get(field).and_then(Value::as_str).map(str::to_owned)
    }

    fn flag(&mut self, field: &str) -> bool {
        let Some(found) = self.get(field) else { return false };
        found.as_bool().unwrap_or_else(|| {
            self.wrong(field, found, "`true` or `false`");
            false
        })
    }

    fn rank(&mut self) -> usize {
        let Some(found) = self.get("r") else {
            self.faults.push(ConfigFault::missing("r").into());
            return 1;
        };
        match found.as_u64().and_then(|rank| u32::try_from(rank).ok()) {
            Some(rank) if rank > 0 => rank as usize,
            _ => {
                self.wrong("r", found, "a positive integer");
                1
            }
        }
    }

    fn alpha(&mut self) -> f64 {
        let Some(found) = self.get("lora_alpha") else {
            self.faults.push(ConfigFault::missing("lora_alpha").into());
            return 0.0;
        };
        found.as_f64().unwrap_or_else(|| {
            self.wrong("lora_alpha", found, "a number");
            0.0
        })
    }

    /// Numbers by module name pattern. As in `peft`, a pattern has to match a suffix of the name that starts after a
    /// dot.
    fn patterns(&mut self, field: &str) -> Vec<(Regex, f64)> {
        let Some(found) = self.get(field) else { return Vec::new() };
        let Some(map) = found.as_object() else {
            self.wrong(field, found, "an object that maps modules to numbers");
            return Vec::new();
        };
        let mut patterns = Vec::new();
        for (pattern, value) in map {
            let number = value.as_f64().filter(|number| match field {
                "rank_pattern" => {
                    number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(number)
                }
                _ => number.is_finite(),
            });
            let Some(number) = number else {
                self.wrong(
                    &format!("{field}.{pattern}"),
                    value,
                    "a number (for ranks a positive integer)",
                );
                continue;
            };
            match Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")) {
                Ok(regex) => patterns.push((regex, number)),
                Err(error) => self.bad_pattern(field, pattern, &error),
            }
        }
        patterns
    }

    fn bad_pattern(&mut self, field: &str, pattern: &str, error: &fancy_regex::Error) {
        let (field, pattern, reason) = (field.to_owned(), pattern.to_owned(), error.to_string());
        self.faults.push(AdapterFault::Pattern { field, pattern, reason });
    }

    fn targets(&mut self, field: &str) -> Option<Targets> {
        let found = self.get(field)?;
        if let Some(pattern) = found.as_str() {
            if pattern == "all-linear" {
                return Some(Targets::AllLinear);
            }
            return match Regex::new(&format!("^(?:{pattern})$")) {
                Ok(regex) => Some(Targets::Pattern(regex)),
                Err(error) => {
                    self.bad_pattern(field, pattern, &error);
                    Some(Targets::AllLinear)
                }
            };
        }
        Some(Targets::Names(self.names(field)))
    }

    fn names(&mut self, field: &str) -> Vec<String> {
        let Some(found) = self.get(field) else { return Vec::new() };
        let names: Option<Vec<String>> = found
            .as_array()
            .and_then(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        names.unwrap_or_else(|| {
            self.wrong(field, found, "a list of module names");
            Vec::new()
        })
    }

    fn layers(&mut self) -> Option<Vec<u64>> {
        if let Some(found) = self.get("layers_pattern").filter(|found| is_set(found)) {
            // The decoder has a single module list.
            if !matches!(found.as_str(), Some("layers")) && *found != serde_json::json!(["layers"])
            {
                self.unsupported("layers_pattern", found, "use `layers`");
            }
        }
        let found = self.get("layers_to_transform").filter(|found| is_set(found))?;
        let layers = match found {
            Value::Array(list) => list.iter().map(Value::as_u64).collect(),
            one => one.as_u64().map(|layer| vec![layer]),
        };
        if layers.is_none() {
            self.wrong("layers_to_transform", found, "a layer index or a list of layer indices");
        }
        layers
    }
}

/// Whether a value is neither empty nor false.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn display(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
