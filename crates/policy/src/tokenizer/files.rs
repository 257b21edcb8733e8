//! The files of a tokenizer.

/// The tokenizer's vocabulary and pipeline.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";

/// Further settings of `transformers`, such as the chat template.
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// The special tokens of older versions of `transformers`.
pub(super) const SPECIAL_TOKENS_MAP_FILE: &str = "special_tokens_map.json";

/// Tokens with their ids of older versions of `transformers`.
pub(super) const ADDED_TOKENS_FILE: &str = "added_tokens.json";

/// Vocabularies in other formats than `tokenizer.json`, which are not read.
pub(super) const VOCABULARY_FILES: [&str; 6] =
    ["vocab.json", "tokenizer.model", "tiktoken.model", "tekken.json", "vocab.txt", "spiece.model"];

/// A model's generation defaults, among them its stop tokens.
pub(crate) const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// A model's tokenizer and generation files.
pub(crate) const FILES: [&str; 10] = [
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    "chat_template.jinja",
    "chat_template.json",
    SPECIAL_TOKENS_MAP_FILE,
    ADDED_TOKENS_FILE,
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];
