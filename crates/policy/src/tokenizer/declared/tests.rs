use serde_json::json;

use super::super::tests::with_files;
use super::*;
use crate::tokenizer::{ChatMessage, GenerationPrompt, SpecialTokens, Tokenizer};

fn settings(settings: Value) -> tempfile::TempDir {
    with_files(&[(TOKENIZER_CONFIG_FILE, settings)])
}

/// The last token of a text, by what it is.
fn last(tokenizer: &Tokenizer, text: &str) -> String {
    let id = *tokenizer.encode(text).unwrap().last().unwrap();
    tokenizer.token(id).unwrap()
}

#[track_caller]
fn refused(dir: &Path) -> String {
    Tokenizer::from_dir(dir).unwrap_err().to_string()
}

#[test]
fn special_tokens_named_anywhere_are_tokens() {
    for (key, value) in [
        ("pad_token", json!("<|x|>")),
        ("image_token", json!("<|x|>")),
        ("bos_token", json!({ "content": "<|x|>", "__type": "AddedToken" })),
        ("additional_special_tokens", json!(["<|x|>"])),
        ("additional_special_tokens", json!([{ "content": "<|x|>" }])),
        ("extra_special_tokens", json!(["<|x|>"])),
        ("extra_special_tokens", json!({ "image_token": "<|x|>" })),
    ] {
        for file in [TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_MAP_FILE] {
            let dir =
                with_files(&[(TOKENIZER_CONFIG_FILE, json!({})), (file, json!({ key: value }))]);
            let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
            assert_eq!(last(&tokenizer, "a<|x|>"), "<|x|>", "{key} in {file}");
            let ids = tokenizer.encode("a<|x|>").unwrap();
            assert_eq!(
                tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(),
                "a",
                "{key} in {file}"
            );
        }
    }
    let none = settings(json!({ "pad_token": null, "add_bos_token": true, "padding": "<|x|>" }));
    assert_eq!(last(&Tokenizer::from_dir(none.path()).unwrap(), "a<|x|>"), ">");
}

#[test]
fn an_added_token_that_is_named_as_a_special_one_is_special() {
    let dir = settings(json!({ "eos_token": "<|im_end|>" }));
    let path = dir.path().join(super::super::TOKENIZER_FILE);
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let tokens = file["added_tokens"].as_array_mut().unwrap();
    tokens.iter_mut().for_each(|token| token["special"] = false.into());
    std::fs::write(&path, file.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let ids = tokenizer.encode("a<|im_end|><|im_start|>").unwrap();
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(), "a<|im_start|>");
}

#[test]
fn special_tokens_map_takes_precedence_unless_added_tokens_decoder_is_there() {
    let map = (SPECIAL_TOKENS_MAP_FILE, json!({ "eos_token": "<|im_start|>" }));
    for (settings, eos) in [
        (json!({}), "<|im_start|>"),
        (json!({ "eos_token": "<|im_end|>" }), "<|im_start|>"),
        (json!({ "eos_token": "<|im_end|>", "added_tokens_decoder": {} }), "<|im_end|>"),
    ] {
        let template = json!("{{ eos_token }}");
        let mut settings = settings;
        settings["chat_template"] = template;
        let dir = with_files(&[(TOKENIZER_CONFIG_FILE, settings), map.clone()]);
        std::fs::remove_file(dir.path().join("generation_config.json")).unwrap();
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!(tokenizer.stop_ids(), [tokenizer.token_id(eos).unwrap()]);
        let messages = [ChatMessage::user("?")];
        let chat = tokenizer.apply_chat_template(&messages, GenerationPrompt::None).unwrap();
        assert_eq!(chat.text(), eos);
    }
}

#[test]
fn tokens_of_added_tokens_are_added_unless_added_tokens_decoder_is_there() {
    let next = Tokenizer::from_dir(with_files(&[]).path()).unwrap().len();
    let with = |settings: Value, id: usize| {
        let added = (ADDED_TOKENS_FILE, json!({ "<|x|>": id, "<|im_end|>": 2 }));
        with_files(&[(TOKENIZER_CONFIG_FILE, settings), added])
    };
    let tokenizer = Tokenizer::from_dir(with(json!({}), next).path()).unwrap();
    assert_eq!(tokenizer.token_id("<|x|>"), u32::try_from(next).ok());
    let ids = tokenizer.encode("a<|x|>").unwrap();
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(), "a<|x|>");
    let special = with(json!({ "extra_special_tokens": ["<|x|>"] }), next);
    let tokenizer = Tokenizer::from_dir(special.path()).unwrap();
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(), "a");
    let ignored = with(json!({ "added_tokens_decoder": {} }), next);
    assert_eq!(Tokenizer::from_dir(ignored.path()).unwrap().token_id("<|x|>"), None);
    let message = refused(with(json!({}), next + 7).path());
    assert!(message.contains("`<|x|>` to the id"), "{message}");
}

#[test]
fn fields_of_declared_tokens_have_defaults_and_anything_but_a_token_is_refused() {
    let next = Tokenizer::from_dir(with_files(&[]).path()).unwrap().len().to_string();
    let declared =
        |id: &str, token: Value| settings(json!({ "added_tokens_decoder": { id: token } }));
    let dir = declared(&next, json!({ "content": "<|x|>", "special": true }));
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(last(&tokenizer, "a<|x|>"), "<|x|>");
    for (id, token) in [("x", json!("<|x|>")), (next.as_str(), json!({ "special": true }))] {
        let message = refused(declared(id, token).path());
        assert!(message.contains("added_tokens_decoder") && message.contains(id), "{message}");
    }
}

#[test]
fn special_tokens_that_are_to_be_split_are_refused() {
    let message = refused(settings(json!({ "split_special_tokens": true })).path());
    assert!(message.contains("`split_special_tokens` is not supported"), "{message}");
    assert!(Tokenizer::from_dir(settings(json!({ "split_special_tokens": false })).path()).is_ok());
}

#[test]
fn a_vocabulary_in_another_format_is_named() {
    for file in VOCABULARY_FILES {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(file), "{}").unwrap();
        let message = refused(dir.path());
        assert!(message.contains(&format!("it has `{file}` but no `tokenizer.json`")), "{message}");
    }
}

#[test]
fn flags_beside_a_tokenizer_do_not_change_what_its_post_processor_adds() {
    for flag in [true, false] {
        let dir = settings(json!({
            "bos_token": "<|endoftext|>", "add_bos_token": flag, "add_eos_token": flag,
            "add_prefix_space": flag,
        }));
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        let text = "chair left";
        let ids = tokenizer.encode_with_special_tokens(text).unwrap();
        assert_eq!(ids, tokenizer.encode(text).unwrap());
        assert_eq!(tokenizer.decode(&ids, SpecialTokens::Keep).unwrap(), text);
    }
}
