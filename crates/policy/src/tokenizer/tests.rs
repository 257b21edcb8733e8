use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Copies a trained tokenizer with ChatML's template into `dir`: that of the bundled base.
fn trained(dir: &Path) -> Tokenizer {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/base");
    for file in [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, GENERATION_CONFIG_FILE] {
        std::fs::copy(base.join(file), dir.join(file)).unwrap();
    }
    Tokenizer::from_dir(dir).unwrap()
}

pub(super) fn with_files(files: &[(&str, serde_json::Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path());
    for (name, value) in files {
        std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    }
    dir
}

#[test]
fn a_chat_is_rendered_and_encoded_with_chatmls_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = trained(dir.path());
    let conversation = [ChatMessage::system("Think."), ChatMessage::user("Where is the lamp?")];
    let chat = tokenizer.apply_chat_template(&conversation, GenerationPrompt::Append).unwrap();
    assert_eq!(
        chat.text(),
        "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\nWhere is the lamp?<|im_end|>\n<|im_start|>assistant\n"
    );
    let ids = tokenizer.encode_chat(&chat).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == 1).count(), 3);
    assert_eq!(tokenizer.stop_ids(), [2, 0]);
    assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
}

#[test]
fn special_tokens_are_kept_or_skipped_as_requested() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = trained(dir.path());
    let ids = tokenizer.encode("lamp<|im_end|>\n").unwrap();
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Keep).unwrap(), "lamp<|im_end|>\n");
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(), "lamp\n");
}

#[test]
fn ids_of_embedding_padding_decode_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = trained(dir.path());
    let beyond = u32::try_from(tokenizer.len()).unwrap() + 5;
    assert_eq!(tokenizer.decode(&[beyond], SpecialTokens::Keep).unwrap(), "");
}

#[test]
fn stop_tokens_of_all_sources_are_deduplicated() {
    let dir = with_files(&[
        (GENERATION_CONFIG_FILE, json!({ "eos_token_id": [7, 0] })),
        ("config.json", json!({ "text_config": { "eos_token_id": 9 }, "eos_token_id": null })),
        (TOKENIZER_CONFIG_FILE, json!({ "eos_token": { "content": "<|im_end|>" } })),
    ]);
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().stop_ids(), [7, 0, 9, 2]);
}

#[test]
fn invalid_stop_tokens_are_rejected() {
    let dir = with_files(&[(GENERATION_CONFIG_FILE, json!({ "eos_token_id": "<|im_end|>" }))]);
    let message = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("must be a token id or a list of token ids, not `\"<|im_end|>\"`"),
        "{message}"
    );
    let dir = with_files(&[(TOKENIZER_CONFIG_FILE, json!({ "eos_token": "</s>" }))]);
    let message = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.starts_with("`eos_token` in") && message.contains("`</s>`"), "{message}");
}

#[test]
fn tokens_declared_only_in_the_configuration_are_recognized() {
    let dir = tempfile::tempdir().unwrap();
    let next = trained(dir.path()).len();
    let declare = |id: usize| {
        let token = json!({
            "content": "<|image_pad|>", "lstrip": false, "normalized": false, "rstrip": false,
            "single_word": false, "special": true,
        });
        let config = json!({ "added_tokens_decoder": { id.to_string(): token } });
        std::fs::write(dir.path().join(TOKENIZER_CONFIG_FILE), config.to_string()).unwrap();
        Tokenizer::from_dir(dir.path())
    };
    let ids = declare(next).unwrap().encode("a<|image_pad|>").unwrap();
    assert_eq!(ids.last().copied(), u32::try_from(next).ok());
    assert!(matches!(declare(next + 3), Err(Error::AddedToken { .. })));
}

#[test]
fn a_missing_chat_template_is_reported_when_it_is_needed() {
    let dir = with_files(&[(TOKENIZER_CONFIG_FILE, json!({}))]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let error = tokenizer
        .apply_chat_template(&[ChatMessage::user("hi")], GenerationPrompt::Append)
        .unwrap_err();
    assert!(matches!(error, Error::NoChatTemplate { .. }), "{error}");
}

#[test]
fn a_folder_without_a_tokenizer_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let message = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.starts_with("no `tokenizer.json` in `"), "{message}");
    std::fs::write(dir.path().join(TOKENIZER_FILE), "{}").unwrap();
    assert!(matches!(Tokenizer::from_dir(dir.path()), Err(Error::Tokenizer { .. })));
}

#[test]
fn a_tokenizer_can_be_saved_after_its_folder_is_deleted() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tokenizer = trained(from.path());
    drop(from);
    tokenizer.save(to.path()).unwrap();
    let text = "<|im_start|>user\nchair left 35, 3 m<|im_end|>";
    let saved = Tokenizer::from_dir(to.path()).unwrap();
    assert_eq!(saved.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    assert_eq!(saved.stop_ids(), tokenizer.stop_ids());
}

proptest! {
    #[test]
    fn any_text_survives_a_round_trip(texts in prop::collection::vec("\\PC*|[a-z0-9 .,\\n\\t]{0,30}", 1..20)) {
        static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(|| {
            let dir = tempfile::tempdir().unwrap();
            trained(dir.path())
        });
        for text in texts {
            let ids = TOKENIZER.encode(&text).unwrap();
            prop_assert_eq!(TOKENIZER.decode(&ids, SpecialTokens::Keep).unwrap(), text);
        }
    }
}
