//! Parses the rotary position embedding.

use embodied_r_kernels::rope::MropeSections;
use serde_json::{Map, Value};

use super::{Fields, display};
use crate::config::ConfigFault;
use crate::config::rope::{Llama3, Rope, RopeKind, Yarn};

/// The `rope_scaling` or `rope_parameters` object, and its name.
#[derive(Clone, Copy)]
struct Dictionary<'a> {
    name: &'static str,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Dictionary<'a> {
    /// A field; `null` counts as absent.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.and_then(|map| map.get(field)).filter(|value| !value.is_null())
    }

    fn is_null(&self, field: &str) -> bool {
        self.map.and_then(|map| map.get(field)).is_some_and(Value::is_null)
    }

    fn name_of(&self, field: &str) -> String {
        format!("{}.{field}", self.name)
    }
}

impl<'a> Fields<'a> {
    /// The rotary embedding; parameters are resolved as by `convert_rope_params_to_dict` and
    /// `standardize_rope_params` of `transformers` 5.
    pub(super) fn rope(&mut self, head_dim: usize, positions: usize) -> Rope {
        let dictionary = self.rope_dictionary();
        self.reject_partial_or_per_layer_rope(dictionary);
        let rope = Rope {
            theta: self.rope_theta(dictionary),
            kind: self.rope_kind(dictionary, positions.max(1)),
            mrope_section: self.mrope_section(dictionary),
        };
        self.faults.extend(rope.faults(head_dim, dictionary.name));
        rope
    }

    /// `transformers` prefers the older name if both are present, and treats `{}` as absent.
    fn rope_dictionary(&mut self) -> Dictionary<'a> {
        for part in [self.text, self.outer] {
            for name in ["rope_scaling", "rope_parameters"] {
                match part.get(name) {
                    None | Some(Value::Null) => {}
                    Some(Value::Object(map)) if map.is_empty() => {}
                    Some(Value::Object(map)) => return Dictionary { name, map: Some(map) },
                    Some(found) => {
                        self.faults.push(ConfigFault::wrong(name, display(found), "a JSON object"));
                        return Dictionary { name, map: None };
                    }
                }
            }
        }
        Dictionary { name: "rope_scaling", map: None }
    }

    fn reject_partial_or_per_layer_rope(&mut self, dictionary: Dictionary<'_>) {
        let part = dictionary.get("partial_rotary_factor");
        let part = part.or_else(|| self.get("partial_rotary_factor"));
        if let Some(part) = part.filter(|part| part.as_f64() != Some(1.0)) {
            self.reject("partial_rotary_factor", part, "use a factor of 1");
        }
        for kind in ["full_attention", "sliding_attention"] {
            if dictionary.get(kind).is_some() {
                let why = "use one rotary embedding for all layer types";
                self.reject(dictionary.name, &Value::from(kind), why);
            }
        }
    }

    fn rope_theta(&mut self, dictionary: Dictionary<'_>) -> f64 {
        let default = self.source.rope_theta;
        let Some(value) = dictionary.get("rope_theta").or_else(|| self.get("rope_theta")) else {
            return default;
        };
        match value.as_f64() {
            Some(theta) => theta,
            None => {
                let found = display(value);
                self.faults.push(ConfigFault::wrong("rope_theta", found, "a positive number"));
                default
            }
        }
    }

    fn rope_kind(&mut self, dictionary: Dictionary<'_>, positions: usize) -> RopeKind {
        let Some(name) = dictionary.get("rope_type").or_else(|| dictionary.get("type")) else {
            return RopeKind::Default;
        };
        match name.as_str() {
            // M-RoPE is identified by its sections; `mrope` is the type in the hub's Qwen2-VL files.
            Some("default" | "mrope") => RopeKind::Default,
            Some("linear") => RopeKind::Linear { factor: self.factor(dictionary) },
            Some("llama3") => RopeKind::Llama3(Llama3 {
                factor: self.factor(dictionary),
                // If one is missing, the other must not be reported too.
                low_freq_factor: self.required(dictionary, "low_freq_factor", 1e-30),
                high_freq_factor: self.required(dictionary, "high_freq_factor", 1e30),
                original_max_position_embeddings: self.original_positions(dictionary, positions),
            }),
            Some("yarn") => RopeKind::Yarn(self.yarn(dictionary, positions)),
            _ => {
                let why = "use `default`, `mrope`, `linear`, `llama3` or `yarn`";
                self.reject(dictionary.name, name, why);
                RopeKind::Default
            }
        }
    }

    fn yarn(&mut self, dictionary: Dictionary<'_>, positions: usize) -> Yarn {
        let original = self.original_positions(dictionary, positions);
        let factor = match dictionary.is_null("factor") {
            true => positions as f64 / original as f64,
            false => self.factor(dictionary),
        };
        // `transformers` treats 0 as absent here.
        let mut given =
            |field| self.optional(dictionary, field).filter(|number: &f64| *number != 0.0);
        let (beta_fast, beta_slow) = (given("beta_fast"), given("beta_slow"));
        let (mscale, mscale_all_dim) = (given("mscale"), given("mscale_all_dim"));
        Yarn {
            factor,
            attention_factor: self.optional(dictionary, "attention_factor"),
            beta_fast: beta_fast.unwrap_or(Yarn::BETA_FAST),
            beta_slow: beta_slow.unwrap_or(Yarn::BETA_SLOW),
            mscale,
            mscale_all_dim,
            original_max_position_embeddings: original,
            truncate: self.truncate(dictionary),
        }
    }

    fn truncate(&mut self, dictionary: Dictionary<'_>) -> bool {
        match dictionary.get("truncate") {
            // Absent means on, `null` means off, as in `transformers`.
            None => !dictionary.is_null("truncate"),
            Some(Value::Bool(on)) => *on,
            Some(found) => {
                let fault = ConfigFault::wrong(
                    dictionary.name_of("truncate"),
                    display(found),
                    "`true` or `false`",
                );
                self.faults.push(fault);
                true
            }
        }
    }

    /// The pre-training context length: next to the object, inside it, or `max_position_embeddings`.
    fn original_positions(&mut self, dictionary: Dictionary<'_>, positions: usize) -> usize {
        const FIELD: &str = "original_max_position_embeddings";
        let (name, value) = match self.get(FIELD) {
            Some(value) => (FIELD.to_owned(), value),
            None => match dictionary.get(FIELD) {
                Some(value) => (dictionary.name_of(FIELD), value),
                None => return positions,
            },
        };
        match value.as_u64().and_then(|length| u32::try_from(length).ok()) {
            Some(length) if length > 0 => length as usize,
            _ => {
                self.faults.push(ConfigFault::wrong(name, display(value), "a positive integer"));
                positions
            }
        }
    }

    fn mrope_section(&mut self, dictionary: Dictionary<'_>) -> Option<MropeSections> {
        let interleaved = self.source.mrope_section.is_some_and(|sections| sections.interleaved);
        if let Some(found) = dictionary.get("mrope_interleaved")
            && found.as_bool() != Some(interleaved)
        {
            let why = "only Qwen3-VL interleaves M-RoPE, and always";
            self.reject("mrope_interleaved", found, why);
        }
        let Some(value) = dictionary.get("mrope_section") else {
            return self.source.mrope_section;
        };
        let size = |size: &Value| size.as_u64().and_then(|size| u32::try_from(size).ok());
        let sizes: Option<Vec<usize>> = value.as_array().and_then(|sizes| {
            sizes.iter().map(|one| size(one).map(|size| size as usize)).collect()
        });
        let section = sizes.and_then(|sizes| <[usize; 3]>::try_from(sizes).ok());
        if section.is_none() {
            let name = dictionary.name_of("mrope_section");
            let want = "three sizes that sum to half of `head_dim`";
            self.faults.push(ConfigFault::wrong(name, display(value), want));
        }
        section.map(|sizes| MropeSections { sizes, interleaved })
    }

    fn factor(&mut self, dictionary: Dictionary<'_>) -> f64 {
        self.required(dictionary, "factor", 1.0)
    }

    /// A required number; parsing continues with `fallback` if it is missing.
    fn required(&mut self, dictionary: Dictionary<'_>, field: &str, fallback: f64) -> f64 {
        if dictionary.get(field).is_none() {
            self.faults.push(ConfigFault::missing(dictionary.name_of(field)));
            return fallback;
        }
        self.optional(dictionary, field).unwrap_or(fallback)
    }

    fn optional(&mut self, dictionary: Dictionary<'_>, field: &str) -> Option<f64> {
        let value = dictionary.get(field)?;
        let number = value.as_f64();
        if number.is_none() {
            let name = dictionary.name_of(field);
            self.faults.push(ConfigFault::wrong(name, display(value), "a number"));
        }
        number
    }
}
