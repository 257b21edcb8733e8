use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper};

use super::*;
use crate::tokenizer::{Placeholders, write_byte_tokenizer};

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const CORPUS: [&str; 6] = [
    "the lamp is left of the chair, isn't it? the lamp's light\r\n\r\n  then   they're here",
    "a  b\n \n  c\t\td. 123 4567 89 the the the",
    "字字字，字字。字\n字 字字é café café naïve",
    "if (a) {\n    return b;\n}\n\n\n",
    "word word's word'Re word'D WORD word, word.\n",
    "  leading and trailing  ",
];

fn split(pattern: &str) -> Value {
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": false});
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}, bytes]})
}

/// A BPE with merges over this pre-tokenizer.
fn trained(pre_tokenizer: Value, normalizer: Value) -> Tokenizer {
    let pre_tokenizer: PreTokenizerWrapper = serde_json::from_value(pre_tokenizer).unwrap();
    let normalizer: Option<tokenizers::NormalizerWrapper> =
        serde_json::from_value(normalizer).unwrap();
    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(pre_tokenizer));
    inner.with_normalizer(normalizer).unwrap();
    inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(420)
        .min_frequency(1)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    inner.train(&mut trainer, CORPUS.into_iter()).unwrap();
    inner.add_special_tokens([AddedToken::from("<|im_end|>", true)]).unwrap();
    inner.add_tokens([AddedToken::from("<think>", false)]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    inner.save(dir.path().join("tokenizer.json"), false).unwrap();
    Tokenizer::from_dir(dir.path()).unwrap()
}

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": true});
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/base");
    vec![
        trained(split(QWEN2), json!({"type": "NFC"})),
        trained(split(LLAMA3), Value::Null),
        trained(gpt2, Value::Null),
        Tokenizer::from_dir(base.as_ref()).unwrap(),
    ]
});

#[test]
fn common_tokenizers_can_be_cut() {
    for tokenizer in &*TOKENIZERS {
        let (first, rest) = tokenizer.text_bounds().split("a lamp is left of the chair", 3);
        assert_eq!((first, rest), ("a lamp", " is left of the chair"));
    }
}

#[test]
fn a_tokenizer_that_merges_across_words_is_never_cut() {
    let whole = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": false});
    let lookbehind = split(r"(?<=x)y|[^\r\n\p{L}\p{N}]?\p{L}+|\s+");
    let lowercase = json!({"type": "Lowercase"});
    for tokenizer in [
        trained(whole, Value::Null),
        trained(lookbehind, Value::Null),
        trained(split(QWEN2), lowercase),
    ] {
        assert_eq!(tokenizer.text_bounds().split("a lamp is left", 3).1, "");
    }
}

#[test]
fn an_added_token_with_a_space_inside_is_not_cut() {
    let mut tokenizer = trained(split(QWEN2), Value::Null);
    tokenizer.inner.add_tokens([AddedToken::from("end of turn", false)]).unwrap();
    assert_eq!(tokenizer.text_bounds().split("the end of turn", 0).1, "");
}

#[test]
fn a_text_beyond_the_limit_is_reported_without_being_encoded() {
    let tokenizer = &TOKENIZERS[0];
    let text = "the lamp is left of the chair ".repeat(50_000);
    let exact = tokenizer.encode(&text).unwrap().len();
    let BoundedIds::TooMany { at_least } = tokenizer.encode_at_most(&text, 10_000).unwrap() else {
        panic!("it fits");
    };
    assert!((10_001..=exact).contains(&at_least), "{at_least} of {exact}");
    // One word of a million letters cannot be cut, but its tokens have a longest.
    let word = "x".repeat(1_000_000);
    let begun = tokenizer.encode_at_most(&word, 1_000).unwrap();
    assert!(matches!(begun, BoundedIds::TooMany { at_least: 1_001.. }));
    let fits = tokenizer.encode_at_most(&text, exact).unwrap();
    assert_eq!(fits, BoundedIds::Ids(tokenizer.encode(&text).unwrap()));
    assert_eq!(
        tokenizer.encode_at_most(&text, exact - 1).unwrap(),
        BoundedIds::TooMany { at_least: exact }
    );
}

#[test]
fn the_tokens_that_a_post_processor_adds_count() {
    let dir = tempfile::tempdir().unwrap();
    write_byte_tokenizer(dir.path(), 300, 256, Placeholders::None).unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [257], "tokens": ["<|im_start|>"]},
            "<|im_end|>": {"id": "<|im_end|>", "ids": [258], "tokens": ["<|im_end|>"]}}});
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let whole = tokenizer.encode_with_special_tokens("lamp").unwrap();
    assert_eq!((whole[0], whole.len()), (257, 6));
    let bounded = |most| tokenizer.encode_with_special_tokens_at_most("lamp", most).unwrap();
    assert_eq!(bounded(6), BoundedIds::Ids(whole));
    assert_eq!(bounded(5), BoundedIds::TooMany { at_least: 6 });
}

/// Texts of the fragments that patterns treat differently.
fn texts() -> impl Strategy<Value = String> {
    let fragments = prop::sample::select(vec![
        "a",
        "lamp",
        "the",
        "É",
        "e\u{301}",
        "字",
        "字字",
        "\u{1100}\u{1161}\u{11a8}",
        "각",
        "ª",
        "\u{301}",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "，",
        "。",
        "'s",
        "'RE",
        "'",
        "1",
        "234",
        "5678",
        ".",
        ",",
        "!?",
        "<|im_end|>",
        "<think>",
        "<|",
        "_",
        "\u{212b}",
        "𝒂",
        "🪑",
        "\u{0}",
    ]);
    prop::collection::vec(fragments, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn pieces_have_the_tokens_of_the_whole_text(text in texts(), bytes in 0..12_usize) {
        for tokenizer in &*TOKENIZERS {
            let whole = tokenizer.encode(&text).unwrap();
            let pieces = tokenizer.encode_pieces(&text, &[], usize::MAX, bytes).unwrap();
            prop_assert_eq!(pieces, BoundedIds::Ids(whole), "{:?}", text);
        }
    }

    #[test]
    fn pieces_have_the_tokens_of_the_whole_message(text in texts(), bytes in 0..12_usize) {
        for tokenizer in &*TOKENIZERS {
            let chat = tokenizer.plain(&text);
            let whole = tokenizer.encode_chat(&chat).unwrap();
            let pieces = tokenizer.encode_pieces(chat.text(), chat.breaks(), usize::MAX, bytes);
            prop_assert_eq!(pieces.unwrap(), BoundedIds::Ids(whole), "{:?}", text);
        }
    }

    #[test]
    fn a_text_has_no_fewer_tokens_than_its_lower_bound(text in texts()) {
        for tokenizer in &*TOKENIZERS {
            let (least, found) =
                (tokenizer.text_bounds().least_tokens(&text), tokenizer.encode(&text).unwrap().len());
            prop_assert!(least <= found, "{least} > {found} in {text:?}");
            prop_assert!(text.is_empty() || least > 0);
        }
    }
}
