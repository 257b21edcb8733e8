//! Converts a GGUF file's tokenizer to a `tokenizer.json`.
//!
//! As in llama.cpp, `add_bos_token` and `add_eos_token` concern raw texts, and byte-level BPE ignores `add_space_prefix`,
//! `remove_extra_whitespaces`, `add_sep_token`, `scores` and the special tokens of other models (`unknown_token_id`,
//! `seperator_token_id`, `mask_token_id`). The tokens of code infilling (`fim_…`) end no completion, as in `transformers`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fault::{GgufFault, Result};
use super::metadata::Metadata;
use crate::tokenizer::VISION_TOKENS;

/// The beginning-of-sequence token.
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
const TEMPLATE: &str = "tokenizer.chat_template";

/// End tokens, the primary one first: end of sequence, of turn, of message.
const ENDS: [&str; 3] = [EOS, "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Tokens that end a turn or a document in the supported families. Files declare only one of them, and some give others
/// another type than control.
const END_TOKENS: [&str; 5] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"];

/// Token types.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Qwen2's pre-tokenization pattern; every digit is separate.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Llama 3's pre-tokenization pattern: Qwen2's with groups of up to three digits.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer in the files of a Hugging Face folder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Files {
    /// `tokenizer.json`.
    pub(crate) tokenizer: Value,
    /// `tokenizer_config.json`, with the chat template.
    pub(crate) config: Value,
    /// `generation_config.json`, with the stop tokens.
    pub(crate) generation: Value,
    /// The stop tokens.
    pub(crate) stop_ids: Vec<u32>,
}

/// Pre-tokenization.
struct PreTokenizer {
    pattern: &'static str,
    normalizer: Value,
    /// Whether a word in the vocabulary becomes one token without applying merges.
    ignore_merges: bool,
    /// Whether raw texts begin with the BOS token if the file does not say.
    adds_bos: bool,
}

/// The stop token ids, deduplicated.
pub(super) fn end_ids(metadata: &Metadata) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for key in ENDS {
        ids.extend(metadata.id(key)?);
    }
    let tokens = metadata.texts(TOKENS)?.unwrap_or_default();
    let types = metadata.integers(TOKEN_TYPES)?.unwrap_or_default();
    for (id, (token, kind)) in (0..).zip(tokens.iter().zip(types)) {
        if kind != UNUSED && END_TOKENS.contains(token) {
            ids.push(id);
        }
    }
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

/// The tokens that stand for images and videos, and those that enclose them.
pub(super) fn placeholder_ids(metadata: &Metadata) -> Result<Vec<u32>> {
    let tokens = metadata.texts(TOKENS)?.unwrap_or_default();
    let placeholders = (0..).zip(tokens).filter(|(_, token)| VISION_TOKENS.contains(token));
    Ok(placeholders.map(|(id, _)| id).collect())
}

/// Reads the tokenizer; `None` if the file has none.
pub(super) fn read(metadata: &Metadata) -> Result<Option<Files>> {
    let Some(model) = metadata.text(MODEL)? else { return Ok(None) };
    if model != "gpt2" {
        return Err(GgufFault::Unsupported {
            key: MODEL.to_owned(),
            found: model.to_owned(),
            why: "use byte-level BPE (`gpt2`), or put the model's `tokenizer.json` beside the file",
        });
    }
    let pre_tokenizer = pre_tokenizer(metadata)?;
    let tokens = required(metadata.texts(TOKENS)?, TOKENS)?;
    let merges = required(metadata.texts(MERGES)?, MERGES)?;
    let types = metadata.integers(TOKEN_TYPES)?.unwrap_or_else(|| vec![1; tokens.len()]);
    if types.len() != tokens.len() {
        let want = format!("an array of {}, one type per token", tokens.len());
        return Err(wrong(TOKEN_TYPES, format!("an array of {}", types.len()), want));
    }
    let stop_ids = end_ids(metadata)?;
    let config = config(metadata, &tokens)?;
    let generation = json!({ "eos_token_id": stop_ids, "bos_token_id": metadata.id(BOS)? });
    let mut tokenizer = tokenizer(&pre_tokenizer, &tokens, &types, &merges)?;
    tokenizer["post_processor"] = post_processor(metadata, &tokens, pre_tokenizer.adds_bos)?;
    Ok(Some(Files { tokenizer, config, generation, stop_ids }))
}

fn wrong(key: &str, found: impl Into<String>, want: impl Into<String>) -> GgufFault {
    GgufFault::Value { key: key.to_owned(), found: found.into(), want: want.into() }
}

fn required<T>(value: Option<T>, key: &str) -> Result<T> {
    value.ok_or_else(|| GgufFault::Missing { key: key.to_owned() })
}

fn pre_tokenizer(metadata: &Metadata) -> Result<PreTokenizer> {
    match required(metadata.text(PRE)?, PRE)? {
        "qwen2" => Ok(PreTokenizer {
            pattern: QWEN2_PATTERN,
            normalizer: json!({ "type": "NFC" }),
            ignore_merges: false,
            adds_bos: false,
        }),
        "llama-bpe" | "llama3" | "llama-v3" => Ok(PreTokenizer {
            pattern: LLAMA3_PATTERN,
            normalizer: Value::Null,
            ignore_merges: true,
            adds_bos: true,
        }),
        found => Err(GgufFault::Unsupported {
            key: PRE.to_owned(),
            found: found.to_owned(),
            why: "use `qwen2` or `llama-bpe`, or put the model's `tokenizer.json` beside the file",
        }),
    }
}

fn tokenizer(
    PreTokenizer { pattern, normalizer, ignore_merges, .. }: &PreTokenizer,
    tokens: &[&str],
    types: &[i32],
    merges: &[&str],
) -> Result<Value> {
    let mut vocabulary = BTreeMap::new();
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(types).enumerate() {
        // Padding rows of the embedding have placeholder names, which must not match text.
        if *kind == UNUSED {
            continue;
        }
        if let Some(first) = vocabulary.insert(*token, id) {
            let found = format!("`{token}` as {first} and as {id}");
            return Err(wrong(TOKENS, found, "every token once"));
        }
        let is_special = matches!(*kind, UNKNOWN | CONTROL) || END_TOKENS.contains(token);
        if is_special || *kind == USER_DEFINED {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": is_special,
            }));
        }
    }
    let merges = merges.iter().map(|merge| pair(merge, &vocabulary)).collect::<Result<Vec<_>>>()?;
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
    });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated",
                    "invert": false,
                },
                &bytes,
            ],
        },
        "post_processor": null,
        "decoder": &bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": ignore_merges, "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// The two tokens of a merge. Neither contains a space, which byte-level BPE encodes as another character.
fn pair<'a>(merge: &'a str, vocabulary: &BTreeMap<&str, usize>) -> Result<[&'a str; 2]> {
    let known = |token: &str| vocabulary.contains_key(token);
    match merge.split_once(' ') {
        Some((left, right))
            if known(left) && known(right) && known(&merge.replacen(' ', "", 1)) =>
        {
            Ok([left, right])
        }
        _ => {
            let want = "pairs of tokens separated by a space, whose concatenation is a token";
            Err(wrong(MERGES, format!("`{merge}`"), want))
        }
    }
}

/// What is added to raw texts: the BOS token before and the EOS token after them, as the file says.
fn post_processor(metadata: &Metadata, tokens: &[&str], adds_bos: bool) -> Result<Value> {
    let token = |flag: &str, default: bool, key: &str| -> Result<Option<(u32, &str)>> {
        let is_added = metadata.flag(flag)?;
        if !is_added.unwrap_or(default) {
            return Ok(None);
        }
        let Some(id) = metadata.id(key)? else {
            // A default needs no token.
            return is_added.map_or(Ok(None), |_| Err(GgufFault::Missing { key: key.to_owned() }));
        };
        Ok(Some((id, named(metadata, tokens, key)?.unwrap_or_default())))
    };
    let (bos, eos) = (token(ADD_BOS, adds_bos, BOS)?, token(ADD_EOS, false, EOS)?);
    let added = || bos.iter().chain(&eos);
    if added().next().is_none() {
        return Ok(Value::Null);
    }
    let text = |name: &str| {
        let special =
            |(_, token): &(u32, &str)| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
        let sequence = json!({ "Sequence": { "id": name, "type_id": 0 } });
        let parts = bos.iter().map(special).chain([sequence]).chain(eos.iter().map(special));
        parts.collect::<Vec<_>>()
    };
    let tokens: Map<String, Value> = added()
        .map(|(id, token)| {
            let special = json!({ "id": token, "ids": [id], "tokens": [token] });
            ((*token).to_owned(), special)
        })
        .collect();
    let pair = [text("A"), text("B")].concat();
    Ok(json!({
        "type": "TemplateProcessing", "single": text("A"), "pair": pair,
        "special_tokens": tokens,
    }))
}

/// The token whose id a key has.
fn named<'a>(metadata: &Metadata, tokens: &[&'a str], key: &str) -> Result<Option<&'a str>> {
    let Some(id) = metadata.id(key)? else { return Ok(None) };
    let token = tokens.get(id as usize).copied();
    let want = || format!("the id of one of the {} tokens", tokens.len());
    token.map(Some).ok_or_else(|| wrong(key, id.to_string(), want()))
}

fn config(metadata: &Metadata, tokens: &[&str]) -> Result<Value> {
    let named = |key: &str| named(metadata, tokens, key);
    let mut config = json!({
        "add_prefix_space": false,
        "bos_token": named(BOS)?,
        "clean_up_tokenization_spaces": false,
        "eos_token": named(EOS)?,
        "pad_token": named(PADDING)?,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    });
    if let Some(template) = metadata.text(TEMPLATE)? {
        config["chat_template"] = json!(template);
    }
    Ok(config)
}
