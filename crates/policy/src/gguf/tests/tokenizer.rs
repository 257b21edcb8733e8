//! Tokenizers of GGUF files, whose ids are those of llama.cpp.

use super::{Writer, model, text_bytes};
use crate::tokenizer::{BoundedIds, SpecialTokens, Tokenizer};

const TOKENS: [&str; 6] = ["a", "b", "ab", "<|bos|>", "<|im_end|>", "<|eos|>"];
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

impl Writer {
    fn flag(self, key: &str, flag: bool) -> Self {
        self.value(key, 7, vec![u8::from(flag)])
    }

    fn list(self, key: &str, kind: u32, elements: &[Vec<u8>]) -> Self {
        let count = (elements.len() as u64).to_le_bytes();
        self.value(key, 9, [&kind.to_le_bytes()[..], &count, &elements.concat()].concat())
    }
}

/// A model with a tokenizer, whose last three tokens have the type `kind`.
fn with_tokenizer(pre: &str, kind: i32) -> Writer {
    let types = [[NORMAL; 3], [kind; 3]].concat();
    let types: Vec<_> = types.iter().map(|kind| kind.to_le_bytes().to_vec()).collect();
    model("llama")
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", pre)
        .list("tokenizer.ggml.tokens", 8, &TOKENS.map(text_bytes))
        .list("tokenizer.ggml.token_type", 5, &types)
        .list("tokenizer.ggml.merges", 8, &[text_bytes("a b")])
}

/// The same with a beginning and an end of a sequence.
fn with_ends(pre: &str) -> Writer {
    let writer = with_tokenizer(pre, CONTROL).count("tokenizer.ggml.bos_token_id", 3);
    writer.count("tokenizer.ggml.eos_token_id", 5)
}

fn read(writer: &Writer) -> crate::error::Result<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, writer.bytes()).unwrap();
    Tokenizer::from_dir(&path)
}

#[test]
fn flags_decide_what_is_added_to_raw_texts_and_llama_3_begins_with_bos_by_default() {
    for (pre, bos, eos, expected) in [
        ("llama-bpe", None, None, &[3, 2][..]),
        ("llama-bpe", Some(true), None, &[3, 2]),
        ("llama-bpe", Some(false), None, &[2]),
        ("llama-bpe", Some(false), Some(true), &[2, 5]),
        ("llama-bpe", None, Some(true), &[3, 2, 5]),
        ("qwen2", None, None, &[2]),
        ("qwen2", Some(true), Some(false), &[3, 2]),
        ("qwen2", Some(false), Some(true), &[2, 5]),
        ("qwen2", Some(true), Some(true), &[3, 2, 5]),
    ] {
        let mut writer = with_ends(pre);
        for (key, flag) in [(ADD_BOS, bos), (ADD_EOS, eos)] {
            writer = flag.into_iter().fold(writer, |writer, flag| writer.flag(key, flag));
        }
        let tokenizer = read(&writer).unwrap();
        let name = format!("{pre} {bos:?} {eos:?}");
        assert_eq!(tokenizer.encode_with_special_tokens("ab").unwrap(), expected, "{name}");
        let at_most = tokenizer.encode_with_special_tokens_at_most("ab", 9).unwrap();
        assert_eq!(at_most, BoundedIds::Ids(expected.to_vec()), "{name}");
        assert_eq!(tokenizer.encode("ab").unwrap(), [2], "{name}");
        // A checkpoint in Hugging Face's layout has the same ids.
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        let saved = Tokenizer::from_dir(saved.path()).unwrap();
        assert_eq!(saved.encode_with_special_tokens("ab").unwrap(), expected, "{name}");
    }
}

#[test]
fn a_flag_needs_its_token_and_a_default_does_not() {
    let none = || with_tokenizer("llama-bpe", CONTROL);
    let ids = read(&none()).unwrap().encode_with_special_tokens("ab").unwrap();
    assert_eq!(ids, [2]);
    for (flag, token) in [(ADD_BOS, "bos_token_id"), (ADD_EOS, "eos_token_id")] {
        let message = read(&none().flag(flag, true)).unwrap_err().to_string();
        assert!(message.contains(&format!("`tokenizer.ggml.{token}` is missing")), "{message}");
        assert!(read(&none().flag(flag, false)).is_ok());
        let message = read(&with_ends("qwen2").count(flag, 1)).unwrap_err().to_string();
        assert!(message.contains(flag) && message.contains("a boolean"), "{message}");
    }
    let beyond = none().flag(ADD_BOS, true).count("tokenizer.ggml.bos_token_id", 6);
    let message = read(&beyond).unwrap_err().to_string();
    assert!(message.contains("the id of one of the 6 tokens"), "{message}");
}

#[test]
fn byte_level_bpe_ignores_the_flags_of_other_tokenizers() {
    let mut writer = with_ends("qwen2");
    for flag in ["add_space_prefix", "remove_extra_whitespaces", "add_sep_token"] {
        writer = writer.flag(&format!("tokenizer.ggml.{flag}"), true);
    }
    assert_eq!(read(&writer).unwrap().encode_with_special_tokens("ab").unwrap(), [2]);
}

#[test]
fn end_tokens_are_special_and_end_a_completion_whatever_their_type() {
    for kind in [NORMAL, CONTROL, 4] {
        let writer = with_tokenizer("qwen2", kind).count("tokenizer.ggml.eot_token_id", 5);
        let tokenizer = read(&writer.count("tokenizer.ggml.eom_token_id", 1)).unwrap();
        assert_eq!(tokenizer.stop_ids(), [5, 1, 4], "{kind}");
        let ids = tokenizer.encode("ab<|im_end|>").unwrap();
        assert_eq!(ids, [2, 4], "{kind}");
        assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(), "ab", "{kind}");
    }
}
