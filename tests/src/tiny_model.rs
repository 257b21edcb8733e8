//! A random decoder of a few thousand parameters with its own tokenizer.

use std::fs;
use std::ops::Range;
use std::path::Path;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{ModelConfig, ModelType, Policy, Rope, WeightDtype};

/// Its hidden size.
pub const HIDDEN_SIZE: usize = 16;

/// Its tokenizer: a byte-level BPE with a few merges, trained on `a lamp is left of the chair`, `Question: where is the
/// lamp?` and `think answer`.
const TOKENIZER: [(&str, &[u8]); 3] = [
    ("tokenizer.json", include_bytes!("tiny_model/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("tiny_model/tokenizer_config.json")),
    ("generation_config.json", include_bytes!("tiny_model/generation_config.json")),
];

/// The families of text decoders that are trained and served. In the first, queries are as wide as the hidden state; in the
/// second they are wider, and have norms.
pub const FAMILIES: [ModelType; 2] = [ModelType::Qwen2, ModelType::Qwen3];

/// Writes the model, of Qwen2, into `dir`.
///
/// # Panics
/// The folder cannot be written.
pub fn write(dir: &Path) {
    write_family(dir, ModelType::Qwen2);
}

/// Writes the model, of one of [`FAMILIES`], into `dir`.
///
/// # Panics
/// The folder cannot be written.
pub fn write_family(dir: &Path, family: ModelType) {
    fs::create_dir_all(dir).expect("a folder can be created");
    for (name, bytes) in TOKENIZER {
        fs::write(dir.join(name), bytes).expect("a folder that can be written");
    }
    let tokenizer = Tokenizer::from_dir(dir).expect("a tokenizer");
    let config = ModelConfig {
        model_type: family,
        vocab_size: tokenizer.len(),
        hidden_size: HIDDEN_SIZE,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: if family == ModelType::Qwen2 { 8 } else { 16 },
        rms_norm_eps: 1e-6,
        rope: Rope::plain(10_000.0),
        sliding_window: None,
        tie_word_embeddings: true,
        max_position_embeddings: 8192,
        initializer_range: 0.1,
        dtype: WeightDtype::F32,
        bos_token_id: None,
        eos_token_ids: vec![2],
        placeholder_token_ids: Vec::new(),
    };
    let policy = Policy::random(&config, 1).expect("the settings are valid");
    policy.save(dir, &SaveOptions::default()).expect("a model can be saved");
}

/// Overwrites elements of a tensor of the model in `dir`.
///
/// # Panics
/// The model cannot be read or written, or has no such elements.
pub fn overwrite(dir: &Path, tensor: &str, elements: Range<usize>, value: f32) {
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("a model with weights");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value =
        serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let start = header[tensor]["data_offsets"][0].as_u64().expect("the tensor") as usize;
    for element in elements {
        let at = 8 + length + start + 4 * element;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(path, bytes).expect("a file that can be written");
}

/// Changes the context length of the model in `dir`.
///
/// # Panics
/// The model cannot be read or written.
pub fn set_context_length(dir: &Path, length: usize) {
    set_size(dir, "max_position_embeddings", length);
}

/// Changes a size in the configuration of the model in `dir`.
///
/// # Panics
/// The model cannot be read or written.
pub fn set_size(dir: &Path, field: &str, size: usize) {
    let path = dir.join("config.json");
    let text = fs::read_to_string(&path).expect("a model with a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("a JSON object");
    config[field] = size.into();
    fs::write(path, config.to_string()).expect("a file that can be written");
}
