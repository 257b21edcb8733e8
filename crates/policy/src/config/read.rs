//! Parses a `config.json` and collects every fault.

mod rope;
mod window;

use serde_json::{Map, Value};

use super::family::{Family, Source, supported_sources};
use super::{ConfigFault, ModelConfig, WeightDtype};

impl ModelConfig {
    /// Parses a `config.json`.
    ///
    /// # Errors
    /// Every field that is missing, invalid or unsupported, or only the `model_type` if it is: other families have other
    /// fields.
    pub fn from_json(value: &Value) -> Result<Self, Vec<ConfigFault>> {
        let Value::Object(outer) = value else {
            return Err(vec![ConfigFault::wrong("config.json", value, "a JSON object")]);
        };
        let text = match outer.get("text_config") {
            Some(Value::Object(text)) => text,
            _ => outer,
        };
        let (family, source) = source(outer).map_err(|fault| vec![fault])?;
        let mut fields = Fields { text, outer, family, source, faults: Vec::new() };
        fields.reject_unsupported();
        let config = fields.config();
        if !fields.faults.is_empty() {
            return Err(fields.faults);
        }
        config.check()?;
        Ok(config)
    }
}

/// The configuration being parsed.
struct Fields<'a> {
    /// The decoder's fields: `text_config`, or the whole file.
    text: &'a Map<String, Value>,
    /// The whole file.
    outer: &'a Map<String, Value>,
    family: &'static Family,
    source: &'static Source,
    faults: Vec<ConfigFault>,
}

/// The family, and the class of configurations, which decides the defaults.
fn source(file: &Map<String, Value>) -> Result<(&'static Family, &'static Source), ConfigFault> {
    let name = file.get("model_type").ok_or_else(|| ConfigFault::missing("model_type"))?;
    let name = display(name);
    let known = Family::of_source(&name);
    known.ok_or_else(|| ConfigFault::unsupported("model_type", name, supported_sources()))
}

impl<'a> Fields<'a> {
    /// A field of the decoder's section, else of the file; `null` counts as absent.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.text.get(field).or_else(|| self.outer.get(field)).filter(|value| !value.is_null())
    }

    fn config(&mut self) -> ModelConfig {
        let hidden_size = self.count("hidden_size", None);
        let num_attention_heads = self.count("num_attention_heads", None);
        let num_hidden_layers = self.count("num_hidden_layers", None);
        let head_dim = self.head_dim(hidden_size, num_attention_heads);
        let positions = Some(self.source.positions);
        let max_position_embeddings = self.count("max_position_embeddings", positions);
        ModelConfig {
            model_type: self.family.model_type,
            vocab_size: self.count("vocab_size", None),
            hidden_size,
            intermediate_size: self.count("intermediate_size", None),
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: self.count("num_key_value_heads", Some(num_attention_heads)),
            head_dim,
            rms_norm_eps: self.number("rms_norm_eps", self.source.rms_norm_eps),
            rope: self.rope(head_dim, max_position_embeddings),
            sliding_window: self.sliding_window(num_hidden_layers),
            tie_word_embeddings: self.tie_word_embeddings(),
            max_position_embeddings,
            initializer_range: self.number("initializer_range", 0.02),
            dtype: self.dtype(),
            bos_token_id: self.token_ids("bos_token_id").first().copied(),
            eos_token_ids: self.token_ids("eos_token_id"),
            placeholder_token_ids: self.placeholder_token_ids(),
        }
    }

    fn reject_unsupported(&mut self) {
        if let Some(found) = self.get("hidden_act").filter(|act| act.as_str() != Some("silu")) {
            self.reject("hidden_act", found, "use `silu`");
        }
        if self.get("quantization_config").is_some() {
            self.reject(
                "quantization_config",
                &Value::from("…"),
                "use weights in f32, bf16 or f16",
            );
        }
        for field in ["num_experts", "num_local_experts"] {
            if let Some(found) = self.get(field) {
                self.reject(field, found, "use a dense model");
            }
        }
        // Families without biases have one on the output projection too if the flag is set; the others do not have it.
        let flags = (!self.family.has_qkv_bias).then_some("attention_bias");
        for flag in flags.into_iter().chain(["mlp_bias"]) {
            if let Some(found) = self.get(flag).filter(|bias| bias.as_bool() != Some(false)) {
                self.reject(flag, found, "use a model without this bias");
            }
        }
    }

    fn reject(&mut self, field: &'static str, found: &Value, why: &'static str) {
        self.faults.push(ConfigFault::unsupported(field, display(found), why));
    }

    fn head_dim(&mut self, hidden_size: usize, heads: usize) -> usize {
        let default = self.source.head_dim.unwrap_or(hidden_size / heads.max(1));
        let is_derived = self.source.head_dim.is_none() && self.get("head_dim").is_none();
        if is_derived && heads > 0 && !hidden_size.is_multiple_of(heads) {
            let want = "a divisor of `hidden_size` unless `head_dim` is set";
            self.faults.push(ConfigFault::wrong("num_attention_heads", heads, want));
        }
        self.count("head_dim", Some(default))
    }

    /// As in `transformers`, either section can tie the embeddings.
    fn tie_word_embeddings(&mut self) -> bool {
        let mut tied = false;
        for part in [self.text, self.outer] {
            match part.get("tie_word_embeddings") {
                None | Some(Value::Null) => {}
                Some(Value::Bool(flag)) => tied |= flag,
                Some(found) => {
                    self.faults.push(ConfigFault::wrong(
                        "tie_word_embeddings",
                        display(found),
                        "`true` or `false`",
                    ));
                }
            }
        }
        tied
    }

    fn dtype(&mut self) -> WeightDtype {
        let Some(value) = self.get("dtype").or_else(|| self.get("torch_dtype")) else {
            return WeightDtype::F32;
        };
        match value.as_str() {
            Some("float32") => WeightDtype::F32,
            Some("bfloat16") => WeightDtype::Bf16,
            Some("float16") => WeightDtype::F16,
            _ => {
                self.reject("dtype", value, "use `float32`, `bfloat16` or `float16`");
                WeightDtype::F32
            }
        }
    }

    /// The placeholders of images and videos, and what encloses them, with the defaults of Qwen2.5-VL and Qwen3-VL.
    fn placeholder_token_ids(&mut self) -> Vec<u32> {
        const TOKENS: [(&str, u32); 4] = [
            ("vision_start_token_id", 151_652),
            ("vision_end_token_id", 151_653),
            ("image_token_id", 151_655),
            ("video_token_id", 151_656),
        ];
        if !self.source.is_multimodal {
            return Vec::new();
        }
        let id = |(field, default)| self.token_ids(field).first().copied().unwrap_or(default);
        TOKENS.map(id).to_vec()
    }

    /// One token id or a list of them.
    fn token_ids(&mut self, field: &'static str) -> Vec<u32> {
        let Some(value) = self.get(field) else { return Vec::new() };
        match token_ids(value) {
            Some(ids) => ids,
            None => {
                self.faults.push(ConfigFault::wrong(
                    field,
                    display(value),
                    "a token id or a list of token ids",
                ));
                Vec::new()
            }
        }
    }

    fn count(&mut self, field: &'static str, default: Option<usize>) -> usize {
        let Some(value) = self.get(field) else {
            if default.is_none() {
                self.faults.push(ConfigFault::missing(field));
            }
            return default.unwrap_or_default();
        };
        // The product of two sizes beyond 32 bits would overflow.
        match value.as_u64().and_then(|count| u32::try_from(count).ok()) {
            Some(count) if count > 0 => count as usize,
            _ => {
                self.faults.push(ConfigFault::wrong(field, display(value), "a positive integer"));
                0
            }
        }
    }

    fn number(&mut self, field: &'static str, default: f64) -> f64 {
        self.get(field).map_or(default, |value| self.positive(field, value))
    }

    fn positive(&mut self, field: &'static str, value: &Value) -> f64 {
        match value.as_f64() {
            Some(number) if number > 0.0 => number,
            _ => {
                self.faults.push(ConfigFault::wrong(field, display(value), "a positive number"));
                0.0
            }
        }
    }
}

/// Token ids given as one integer or a list.
pub(crate) fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    }
}

fn display(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
