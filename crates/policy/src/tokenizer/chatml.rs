//! The files of a tokenizer with ChatML's special tokens and template.

use std::path::Path;

use embodied_r_files::write_json_in_existing_folder;
use serde::Serialize;
use serde_json::json;

use super::files::GENERATION_CONFIG_FILE;
use super::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::error::Result;

/// Ends a document; also the padding token.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins a turn.
const TURN_START: &str = "<|im_start|>";
/// Ends a turn.
const TURN_END: &str = "<|im_end|>";

/// ChatML's special tokens, with consecutive ids in this order: the first ends a document and pads, the others begin and
/// end a turn.
pub const SPECIAL_TOKENS: [&str; 3] = [END_OF_TEXT, TURN_START, TURN_END];

/// Special tokens of Qwen2.5-VL and Qwen3-VL: the start and the end of an image or a video, and the placeholders of images
/// and of videos.
pub const VISION_TOKENS: [&str; 4] =
    ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"];

/// ChatML with the placeholders of images and videos, as Qwen2.5-VL's template without tools and default texts.
pub(super) const VISION_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if \
    message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == \
    'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif part.type == 'video' \
    %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif \
    %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// ChatML: each message between its two special tokens, the role on the first line.
pub(super) const CHAT_TEMPLATE: &str = "\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}";

/// Writes `tokenizer`, of the library `tokenizers` and with [`SPECIAL_TOKENS`] as ids 0, 1 and 2, into the folder `dir`:
/// `tokenizer.json`, `tokenizer_config.json` with a ChatML template, and `generation_config.json` with the stop tokens.
///
/// # Errors
/// A file cannot be written.
pub fn write_chatml_tokenizer(dir: &Path, tokenizer: &impl Serialize) -> Result<()> {
    write(tokenizer, (&SPECIAL_TOKENS, 0), CHAT_TEMPLATE, dir)
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
    tokenizer: &impl Serialize,
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
