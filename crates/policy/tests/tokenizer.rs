//! Parity of the tokenizer and the chat templates with `transformers`.
//!
//! The fixture is a small tokenizer in the style of Qwen2.5's, made by `scripts/parity/make_tokenizer_fixtures.py`.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use embodied_r_policy::tokenizer::{ChatMessage, GenerationPrompt, SpecialTokens, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<Text>,
    conversations: Vec<Conversation>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    kept: String,
    skipped: String,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<ChatMessage>,
    rendered: Rendered,
}

/// The output of each template, without and with a generation prompt.
#[derive(Deserialize)]
struct Rendered {
    default: [String; 2],
    strict: [String; 2],
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer")
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(fixture().join("expected.json")).unwrap()).unwrap()
}

#[test]
fn ids_match_transformers() {
    let tokenizer = Tokenizer::from_dir(&fixture()).unwrap();
    for Text { text, ids, .. } in expected().texts {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn decoded_texts_match_transformers() {
    let tokenizer = Tokenizer::from_dir(&fixture()).unwrap();
    for Text { ids, kept, skipped, .. } in expected().texts {
        assert_eq!(tokenizer.decode(&ids, SpecialTokens::Keep).unwrap(), kept);
        assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(), skipped);
    }
}

#[test]
fn stop_tokens_match_the_generation_config() {
    let tokenizer = Tokenizer::from_dir(&fixture()).unwrap();
    let ids = ["<|im_end|>", "<|endoftext|>"].map(|token| tokenizer.token_id(token).unwrap());
    assert_eq!(tokenizer.stop_ids(), ids);
}

#[test]
fn rendered_conversations_match_transformers() {
    let tokenizer = Tokenizer::from_dir(&fixture()).unwrap();
    for Conversation { messages, rendered } in expected().conversations {
        for (generation, want) in
            [GenerationPrompt::None, GenerationPrompt::Append].into_iter().zip(&rendered.default)
        {
            let chat = tokenizer.apply_chat_template(&messages, generation).unwrap();
            assert_eq!(chat.text(), *want);
        }
    }
}

#[test]
fn a_template_with_all_jinja_features_matches_transformers() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture().join(file), dir.path().join(file)).unwrap();
    }
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer_config.json")).unwrap())
            .unwrap();
    let strict =
        config["chat_template"].as_array().unwrap().iter().find(|t| t["name"] == "strict").unwrap();
    std::fs::write(dir.path().join("chat_template.jinja"), strict["template"].as_str().unwrap())
        .unwrap();

    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    for Conversation { messages, rendered } in expected().conversations {
        for (generation, want) in
            [GenerationPrompt::None, GenerationPrompt::Append].into_iter().zip(&rendered.strict)
        {
            let chat = tokenizer.apply_chat_template(&messages, generation).unwrap();
            assert_eq!(chat.text(), *want);
        }
    }
}
