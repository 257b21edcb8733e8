//! A decoder's shape, from and to Hugging Face's `config.json`.

mod published;
mod read;
mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use published::{DecoderSizes, PUBLISHED};
pub(crate) use read::token_ids;
pub use rope::{Llama3, Rope, RopeKind, Yarn};
use serde_json::{Value, json};

use crate::atomic;
use crate::error::{Error, Result};
use crate::gguf::{self, GgufModel};
use crate::lora;

/// Name of the configuration file in a model's folder.
pub const CONFIG_FILE: &str = "config.json";

/// The families of decoders, by the name `transformers` gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelType {
    /// Qwen2 and Qwen2.5, and the text part of Qwen2.5-VL: without images its three rope positions are equal, which
    /// makes it a Qwen2 decoder.
    Qwen2,
    /// Llama, and what is shaped as it: no biases.
    Llama,
}

impl ModelType {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Llama => "llama",
        }
    }

    /// The class in `transformers`.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }
}

/// The number format of stored weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightDtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl WeightDtype {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// Bytes of one number.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// Layers that see no further back than a number of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Most recent tokens that such a layer sees, the query's own included.
    pub tokens: usize,
    /// The layers, ascending.
    pub layers: Vec<usize>,
}

/// The shape of a decoder. Fields bear the names of `transformers`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub model_type: ModelType,
    /// Rows of the embedding, often more than the tokenizer has entries.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head, even. Usually `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Added to the mean square in RMS norms.
    pub rms_norm_eps: f64,
    /// The rotary position embedding.
    pub rope: Rope,
    /// The layers that see the most recent tokens alone; `None` where every layer sees all.
    pub sliding_window: Option<SlidingWindow>,
    /// Whether the output layer is the embedding itself.
    pub tie_word_embeddings: bool,
    /// Whether the query, key and value products have a bias (the output product never has).
    pub attention_bias: bool,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f64,
    /// The format of the weights beside this configuration.
    pub dtype: WeightDtype,
    /// First token of a text, if the model wants one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; the first is the main one.
    pub eos_token_ids: Vec<u32>,
}

impl ModelConfig {
    /// Reads `config.json` of the model in `dir`.
    ///
    /// Understood are the hub's flat form and the nested one of `transformers` 5 (`text_config`, `rope_parameters`).
    ///
    /// # Errors
    /// If the file cannot be read, and [`Error::Config`] with every field that is missing, wrong or not supported.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let value: Value = serde_json::from_slice(&text).map_err(Error::json(&path))?;
        Self::from_json(&value).map_err(|faults| Error::Config { path, faults })
    }

    /// The shape of the model that `path` names: a folder in Hugging Face's layout, a GGUF file or a folder with one, or
    /// an adapter's folder, which means the model that the adapter stands on.
    ///
    /// # Errors
    /// As [`Self::from_dir`], and for a broken GGUF file or an adapter without its model.
    pub fn of_model(path: &Path) -> Result<Self> {
        if let Some(base) = lora::base_of(path)? {
            return Self::of_model(&base);
        }
        match gguf::find(path)? {
            Some(file) => Ok(GgufModel::open(&file)?.config().clone()),
            None => Self::from_dir(path),
        }
    }

    /// Reads the contents of a `config.json`.
    ///
    /// # Errors
    /// Every field that is missing, wrong or not supported.
    pub fn from_json(value: &Value) -> Result<Self, Vec<ConfigFault>> {
        read::config(value)
    }

    /// Writes `config.json` into `dir`, in the flat form that every `transformers` reads.
    ///
    /// # Errors
    /// [`Error::Config`] if the shape is impossible, [`Error::Io`] if the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.check_for(dir)?;
        atomic::write_json(&dir.join(CONFIG_FILE), &self.to_json())
    }

    /// [`Self::check`] of what is to be written into `dir`.
    pub(crate) fn check_for(&self, dir: &Path) -> Result<()> {
        self.check().map_err(|faults| Error::Config { path: dir.join(CONFIG_FILE), faults })
    }

    /// The contents of a `config.json`.
    pub fn to_json(&self) -> Value {
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let mut value = json!({
            "architectures": [self.model_type.architecture()],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": self.model_type.name(),
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": self.rope.scaling_json(),
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": self.dtype.name(),
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        match self.model_type {
            ModelType::Qwen2 => self.write_windows(&mut value),
            ModelType::Llama => {
                value["attention_bias"] = json!(false);
                value["mlp_bias"] = json!(false);
            }
        }
        value
    }

    fn write_windows(&self, value: &mut Value) {
        value["use_sliding_window"] = json!(self.sliding_window.is_some());
        let Some(SlidingWindow { tokens, layers }) = &self.sliding_window else { return };
        let kind = |layer| match self.window(layer) {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        let count = self.num_hidden_layers;
        value["layer_types"] = (0..count).map(kind).collect();
        value["sliding_window"] = json!(tokens);
        // For versions before `layer_types`; they can express windows in the last layers alone.
        value["max_window_layers"] = json!(layers.first().unwrap_or(&count));
    }

    /// The number of most recent tokens, the query's own included, that the layer sees; `None` means
    /// all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let window = self.sliding_window.as_ref()?;
        window.layers.contains(&layer).then_some(window.tokens)
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// Every one that does not.
    pub fn check(&self) -> Result<(), Vec<ConfigFault>> {
        let mut faults = Vec::new();
        for (field, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if size == 0 {
                faults.push(ConfigFault::wrong(field, 0, "a positive integer"));
            }
        }
        if self.num_key_value_heads != 0
            && !self.num_attention_heads.is_multiple_of(self.num_key_value_heads)
        {
            faults.push(ConfigFault::wrong(
                "num_key_value_heads",
                self.num_key_value_heads,
                "a divisor of `num_attention_heads`",
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            faults.push(ConfigFault::wrong("head_dim", self.head_dim, "an even number"));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            let found = self.rms_norm_eps;
            faults.push(ConfigFault::wrong("rms_norm_eps", found, "a positive number"));
        }
        faults.extend(self.rope.faults(self.head_dim, "rope_scaling"));
        if let Some(window) = &self.sliding_window {
            faults.extend(self.window_faults(window));
        }
        if self.model_type == ModelType::Qwen2 && !self.attention_bias {
            faults.push(ConfigFault::unsupported(
                "attention_bias",
                false,
                "qwen2 has biases, take `llama`",
            ));
        }
        if self.model_type == ModelType::Llama && self.attention_bias {
            faults.push(ConfigFault::unsupported(
                "attention_bias",
                true,
                "llama's own has none, take `qwen2`",
            ));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn window_faults(&self, window: &SlidingWindow) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        if window.tokens == 0 {
            faults.push(ConfigFault::wrong("sliding_window", 0, "a positive integer"));
        }
        let ascending = window.layers.is_sorted_by(|a, b| a < b);
        let there = window.layers.last().is_some_and(|last| *last < self.num_hidden_layers);
        if !(ascending && there) {
            let found = format!("{:?}", window.layers);
            let want = "ascending indices of layers, one at least";
            faults.push(ConfigFault::wrong("layer_types", found, want));
        }
        if self.model_type == ModelType::Llama {
            faults.push(ConfigFault::unsupported(
                "sliding_window",
                window.tokens,
                "llama has full attention in every layer, take `qwen2`",
            ));
        }
        faults
    }

    /// Number of trainable numbers.
    pub fn parameter_count(&self) -> usize {
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        let attention = 2 * self.hidden_size * (queries + keys);
        let biases = if self.attention_bias { queries + 2 * keys } else { 0 };
        let feed_forward = 3 * self.hidden_size * self.intermediate_size;
        let layer = attention + biases + feed_forward + 2 * self.hidden_size;
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        embeddings * self.vocab_size * self.hidden_size
            + self.num_hidden_layers * layer
            + self.hidden_size
    }
}

/// One thing wrong with a `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// A field without a default is not there.
    #[error("`{field}` is missing")]
    Missing {
        /// Its name.
        field: String,
    },
    /// A field's value cannot be.
    #[error("`{field}` is `{found}`, want {want}")]
    Wrong {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
        /// What it should be.
        want: &'static str,
    },
    /// A field asks for what this decoder does not do.
    #[error("`{field}` = `{found}` is not supported: {why}")]
    Unsupported {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
        /// What is supported.
        why: &'static str,
    },
}

impl ConfigFault {
    fn missing(field: impl Into<String>) -> Self {
        Self::Missing { field: field.into() }
    }

    fn wrong(field: impl Into<String>, found: impl ToString, want: &'static str) -> Self {
        Self::Wrong { field: field.into(), found: found.to_string(), want }
    }

    fn unsupported(field: impl Into<String>, found: impl ToString, why: &'static str) -> Self {
        Self::Unsupported { field: field.into(), found: found.to_string(), why }
    }
}
