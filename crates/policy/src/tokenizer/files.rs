//! The files of a tokenizer.

/// The tokenizer's vocabulary and pipeline.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";

/// Further settings of `transformers`, such as the chat template.
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// A model's generation defaults, among them its stop tokens.
pub(crate) const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// A model's tokenizer and generation files.
pub(crate) const FILES: [&str; 10] = [
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];
