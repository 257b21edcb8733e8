//! A decoder's configuration: reads and writes Hugging Face's `config.json`.

mod family;
mod fault;
mod folder;
mod published;
mod read;
mod rope;
#[cfg(test)]
mod tests;

pub use family::{DecoderSizes, ModelType};
pub(crate) use family::{Family, GgufArchitecture, supported_gguf};
pub use fault::ConfigFault;
pub use published::published_names;
pub(crate) use read::token_ids;
pub use rope::{Llama3, Rope, RopeKind, Yarn};
use serde_json::{Value, json};

/// Name of the configuration file in a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// The dtype of stored weights.
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

    /// Bytes per element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// Sliding-window attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Window size in tokens, the query's own included.
    pub tokens: usize,
    /// The layers with a window, ascending.
    pub layers: Vec<usize>,
}

/// A decoder's configuration. Fields are named as in `transformers`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub model_type: ModelType,
    /// Rows of the embedding matrix; often padded beyond the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Hidden size of the residual stream.
    pub hidden_size: usize,
    /// Hidden size of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Head dimension, even. Usually `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// The rotary position embedding.
    pub rope: Rope,
    /// Sliding-window attention; `None` if every layer has full attention.
    pub sliding_window: Option<SlidingWindow>,
    /// Whether the LM head shares the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Maximum sequence length, in tokens.
    pub max_position_embeddings: usize,
    /// Standard deviation of randomly initialized weights.
    pub initializer_range: f64,
    /// The dtype of the stored weights.
    pub dtype: WeightDtype,
    /// Token prepended to a text, if any.
    pub bos_token_id: Option<u32>,
    /// End-of-sequence tokens; the first is the primary one.
    pub eos_token_ids: Vec<u32>,
    /// Tokens that stand for images and videos in the prompts of a vision-language model; never sampled.
    pub placeholder_token_ids: Vec<u32>,
}

impl ModelConfig {
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
        let family = self.model_type.family();
        if family.has_windows {
            self.write_windows(&mut value);
        }
        for flag in family.false_flags {
            value[flag] = json!(false);
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
        // For versions without `layer_types`, which only support windows in the last layers.
        value["max_window_layers"] = json!(layers.first().unwrap_or(&count));
    }

    /// The layer's attention window in tokens, the query's own included; `None` is full attention.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let window = self.sliding_window.as_ref()?;
        window.layers.contains(&layer).then_some(window.tokens)
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Every inconsistent field.
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
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn window_faults(&self, window: &SlidingWindow) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        if window.tokens == 0 {
            faults.push(ConfigFault::wrong("sliding_window", 0, "a positive integer"));
        }
        let ascending = window.layers.is_sorted_by(|a, b| a < b);
        let in_range = window.layers.last().is_some_and(|last| *last < self.num_hidden_layers);
        if !(ascending && in_range) {
            let found = format!("{:?}", window.layers);
            let want = "at least one index below `num_hidden_layers`, in ascending order";
            faults.push(ConfigFault::wrong("layer_types", found, want));
        }
        if !self.model_type.family().has_windows {
            let why = "this family has full attention in every layer";
            faults.push(ConfigFault::unsupported("sliding_window", window.tokens, why));
        }
        faults
    }
}
