//! Trains a small byte-level BPE tokenizer, for models trained from scratch.

use std::collections::BTreeSet;
use std::path::Path;

use embodied_r_files::write_json_in_existing_folder;
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl,
};

use super::files::GENERATION_CONFIG_FILE;
use super::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::error::{Error, Result};

/// Ends a document; also the padding token.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins a turn.
const TURN_START: &str = "<|im_start|>";
/// Ends a turn.
const TURN_END: &str = "<|im_end|>";

/// The special tokens, with consecutive ids in this order.
pub(super) const SPECIAL_TOKENS: [&str; 3] = [END_OF_TEXT, TURN_START, TURN_END];

/// Special tokens of Qwen2.5-VL, which follow those of text.
pub(super) const VISION_TOKENS: [&str; 4] =
    ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"];

/// ChatML with the placeholders of images and videos, as Qwen2.5-VL's template without tools and default texts.
pub(super) const VISION_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if \
    message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == \
    'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif part.type == 'video' \
    %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif \
    %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Pre-tokenization pattern: words and numbers include a preceding space, punctuation marks are separate, and numbers
/// are neither split nor merged with other text.
const PATTERN: &str = r" ?\p{L}+| ?\p{N}+|[^\s\p{L}\p{N}]|\s*[\r\n]+|\s+(?!\S)|\s";

/// The same with signs and decimals as parts of numbers.
const DECIMALS_PATTERN: &str =
    r" ?\p{L}+| ?-?\p{N}+(?:\.\p{N}+)?|[^\s\p{L}\p{N}]|\s*[\r\n]+|\s+(?!\S)|\s";

/// ChatML: each message between its two special tokens, the role on the first line.
pub(super) const CHAT_TEMPLATE: &str = "\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}";

/// Training options of a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainOptions {
    /// Maximum vocabulary size, including the three special tokens and the 256 bytes.
    pub vocab_size: usize,
    /// Minimum number of occurrences of a merge.
    pub min_frequency: u64,
    /// Whether a number's sign and decimals are parts of it, so that ` -0.25` can be one token.
    pub decimals: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { vocab_size: 2_048, min_frequency: 2, decimals: false }
    }
}

/// Result of training a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerTrainReport {
    /// Vocabulary size; smaller than requested if the documents have no more merges.
    pub vocab_size: usize,
    /// Numbers in the documents, with or without a preceding space, that take more than one token. A larger vocabulary
    /// keeps them whole.
    pub split_numbers: Vec<String>,
}

/// Trains a byte-level BPE on `documents` and writes it into the folder `dir`: `tokenizer.json`,
/// `tokenizer_config.json` with a ChatML template, and `generation_config.json` with the stop tokens.
///
/// The special tokens are `<|endoftext|>`, `<|im_start|>` and `<|im_end|>` with the ids 0, 1 and 2; the last ends a
/// turn. Any text can be encoded. Training is deterministic.
///
/// In Python, load it with `PreTrainedTokenizerFast`. `AutoTokenizer` of `transformers` 5 works too, except with a
/// `config.json` of the model type `qwen2`, for which it substitutes Qwen2's pre-tokenization.
///
/// # Errors
/// [`Error::VocabSize`] if not even all bytes fit, [`Error::Tokenizer`], [`Error::Io`].
pub fn train<S: AsRef<str> + Send>(
    documents: impl IntoIterator<Item = S, IntoIter: Send>,
    options: &TrainOptions,
    dir: &Path,
) -> Result<TokenizerTrainReport> {
    let smallest = ByteLevel::alphabet().len() + 3;
    if options.vocab_size < smallest {
        return Err(Error::VocabSize { vocab_size: options.vocab_size, smallest });
    }
    let path = dir.join(TOKENIZER_FILE);
    let mut numbers = BTreeSet::new();
    let documents =
        documents.into_iter().inspect(|text| collect_numbers(text.as_ref(), &mut numbers));
    let pattern = if options.decimals { DECIMALS_PATTERN } else { PATTERN };
    let mut tokenizer = untrained(pattern).map_err(Error::tokenizer(&path))?;
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(options.vocab_size)
        .min_frequency(options.min_frequency)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)).into())
        .build();
    tokenizer.train(&mut trainer, documents).map_err(Error::tokenizer(&path))?;
    write(&tokenizer, (&SPECIAL_TOKENS, 0), CHAT_TEMPLATE, dir)?;
    let mut split_numbers = Vec::new();
    for number in numbers {
        let encoding =
            tokenizer.encode_fast(number.as_str(), false).map_err(Error::tokenizer(&path))?;
        if encoding.len() > 1 {
            split_numbers.push(number);
        }
    }
    Ok(TokenizerTrainReport { vocab_size: tokenizer.get_vocab_size(true), split_numbers })
}

pub(super) type ByteLevelBpe =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, ByteLevel>;

fn untrained(pattern: &str) -> tokenizers::Result<ByteLevelBpe> {
    let pieces = Split::new(
        SplitPattern::Regex(pattern.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )?;
    let bytes = ByteLevel::new(false, false, false);
    TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(Sequence::new(vec![pieces.into(), bytes.into()]).into()))
        .with_post_processor(None)
        .with_decoder(Some(bytes))
        .build()
}

/// The numbers of a text, each with its preceding space if any.
fn collect_numbers(text: &str, numbers: &mut BTreeSet<String>) {
    let mut start = None;
    let mut before = None;
    for (at, letter) in text.char_indices().chain([(text.len(), '\n')]) {
        match (start, letter.is_numeric()) {
            (None, true) => start = Some(if before == Some(' ') { at - 1 } else { at }),
            (Some(from), false) => {
                numbers.insert(text[from..at].to_owned());
                start = None;
            }
            _ => {}
        }
        before = Some(letter);
    }
}

/// A special token in `tokenizer_config.json`.
pub(super) fn declared(content: &str) -> serde_json::Value {
    json!({
        "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
        "special": true,
    })
}

/// Writes the files of a tokenizer whose special tokens have ids from `first_special` on.
pub(super) fn write(
    tokenizer: &ByteLevelBpe,
    (special, first_special): (&[&str], u32),
    chat_template: &str,
    dir: &Path,
) -> Result<()> {
    let path = dir.join(TOKENIZER_FILE);
    write_json_in_existing_folder(&path, tokenizer)?;
    let ids = (first_special..).map(|id| id.to_string());
    let declared: serde_json::Map<_, _> =
        ids.zip(special.iter().map(|content| declared(content))).collect();
    let config = json!({
        "added_tokens_decoder": declared,
        "bos_token": null,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": false,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    });
    write_json_in_existing_folder(&dir.join(TOKENIZER_CONFIG_FILE), &config)?;
    let (end_of_text, turn_end) = (first_special, first_special + 2);
    let generation =
        json!({ "eos_token_id": [turn_end, end_of_text], "pad_token_id": end_of_text });
    Ok(write_json_in_existing_folder(&dir.join(GENERATION_CONFIG_FILE), &generation)?)
}
