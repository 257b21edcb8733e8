use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::*;
use crate::tokenizer::SPECIAL_TOKENS;

fn byte_level() -> Arc<Tokenizer> {
    let documents = ["a lamp is left of the chair", "</think> <answer> ä 你好 🦀"];
    let bytes = ByteLevel::new(false, false, true);
    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(300)
        .min_frequency(1)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)).into())
        .build()
        .into();
    inner.train(&mut trainer, documents.into_iter()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    inner.save(dir.path().join("tokenizer.json"), false).unwrap();
    Arc::new(Tokenizer::from_dir(dir.path()).unwrap())
}

/// A sentencepiece vocabulary: special tokens, all bytes, and pieces with `▁` for a space, with the given
/// `decoder`.
fn pieces(decoder: &Value) -> Arc<Tokenizer> {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let words = ["▁", "▁▁", "a", "b", "▁a", "▁b", "ab", "你", "é", "##b", "b</w>", "\u{fffd}"];
    let tokens = special.iter().cloned().chain(bytes).chain(words.map(str::to_owned));
    let vocab: Map<String, Value> = tokens.zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added = |(id, content): (usize, &String)| {
        json!({"id": id, "content": content, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false})
    };
    let added: Vec<Value> = special.iter().enumerate().map(added).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
            "byte_fallback": true, "vocab": vocab, "merges": []},
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    Arc::new(Tokenizer::from_dir(dir.path()).unwrap())
}

/// Llama 2's decoder.
fn sentencepiece() -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})
}

/// Tokenizers with all common decoders.
static TOKENIZERS: LazyLock<Vec<Arc<Tokenizer>>> = LazyLock::new(|| {
    let byte_level_inside = json!({"type": "Sequence", "decoders": [
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
        "split": true});
    let word_piece = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let word_ends = json!({"type": "BPEDecoder", "suffix": "</w>"});
    let others =
        [sentencepiece(), byte_level_inside, metaspace, word_piece, word_ends, json!(null)];
    std::iter::once(byte_level()).chain(others.iter().map(pieces)).collect()
});

fn pieces_of(stream: &mut TextStream, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

fn streamed(tokenizer: &Arc<Tokenizer>, ids: &[u32], stops: &[&str]) -> String {
    let stops = stops.iter().map(ToString::to_string).collect();
    let mut stream =
        TextStream::new(tokenizer.clone(), SpecialTokens::Skip).with_stop_strings(stops, 0);
    pieces_of(&mut stream, ids).concat()
}

/// One token per byte, so that a text can be split anywhere.
fn bytes(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let id = |byte: u8| (0..300).find(|id| tokenizer.token_bytes(*id).unwrap() == [byte]).unwrap();
    text.bytes().map(id).collect()
}

#[test]
fn a_character_is_emitted_with_its_last_byte() {
    let tokenizer = byte_level();
    let mut stream = TextStream::new(tokenizer.clone(), SpecialTokens::Skip);
    let pieces = pieces_of(&mut stream, &bytes(&tokenizer, "é🦀"));
    assert_eq!(pieces, ["", "é", "", "", "", "🦀", ""]);
}

#[test]
fn an_incomplete_character_at_the_end_is_replaced() {
    let tokenizer = byte_level();
    let ids = &bytes(&tokenizer, "a🦀")[..3];
    assert_eq!(streamed(&tokenizer, ids, &[]), "a\u{fffd}");
    assert_eq!(tokenizer.decode(ids, SpecialTokens::Skip).unwrap(), "a\u{fffd}");
}

#[test]
fn sentencepiece_keeps_every_space_but_the_first() {
    let tokenizer = pieces(&sentencepiece());
    let id = |token: &str| tokenizer.token_id(token).unwrap();
    let mut stream = TextStream::new(tokenizer.clone(), SpecialTokens::Skip);
    let ids = [id("<s>"), id("▁a"), id("▁b"), id("▁▁"), id("ab")];
    assert_eq!(pieces_of(&mut stream, &ids), ["", "a", " b", "  ", "ab", ""]);
}

#[test]
fn special_tokens_are_emitted_if_they_are_kept() {
    let tokenizer = byte_level();
    let ids = [bytes(&tokenizer, "a"), vec![2], bytes(&tokenizer, "b")].concat();
    let mut stream = TextStream::new(tokenizer.clone(), SpecialTokens::Keep);
    assert_eq!(pieces_of(&mut stream, &ids), ["a", "<|im_end|>", "b", ""]);
    assert_eq!(streamed(&tokenizer, &ids, &[]), "ab");
}

#[test]
fn a_stop_string_is_found_across_tokens_and_never_emitted_in_part() {
    let tokenizer = byte_level();
    let stops = vec!["</a>".to_owned()];
    let mut stream =
        TextStream::new(tokenizer.clone(), SpecialTokens::Skip).with_stop_strings(stops, 0);
    let pieces = pieces_of(&mut stream, &bytes(&tokenizer, "x</b></a>y"));
    assert_eq!(pieces, ["x", "", "", "</b", ">", "", "", "", "", "", ""]);
    assert_eq!(stream.stop_string(), Some("</a>"));
}

#[test]
fn an_incomplete_stop_string_is_emitted_at_the_end() {
    let tokenizer = byte_level();
    let stops = vec!["end of it".to_owned()];
    let mut stream =
        TextStream::new(tokenizer.clone(), SpecialTokens::Skip).with_stop_strings(stops, 0);
    for id in bytes(&tokenizer, "the end of") {
        stream.push(id).unwrap();
    }
    assert_eq!(stream.pending(), "end of");
    assert_eq!(stream.finish().unwrap(), "end of");
    assert_eq!(stream.stop_string(), None);
}

#[test]
fn the_first_complete_stop_string_counts_and_of_ties_the_longest() {
    let tokenizer = byte_level();
    let cut = |stops: &[&str]| streamed(&tokenizer, &bytes(&tokenizer, "xabcab"), stops);
    assert_eq!(cut(&["abcab", "bc"]), "xa");
    assert_eq!(cut(&["bc", "abc"]), "x");
    assert_eq!(cut(&["", "zz"]), "xabcab");
}

#[test]
fn stop_strings_within_the_first_tokens_do_not_count() {
    let tokenizer = byte_level();
    let stream = TextStream::new(tokenizer.clone(), SpecialTokens::Skip);
    let mut stream = stream.with_stop_strings(vec!["ab".into(), "abab".into()], 3);
    assert_eq!(pieces_of(&mut stream, &bytes(&tokenizer, "abxxab")).concat(), "abxx");
}

#[test]
fn token_bytes_are_those_within_a_text() {
    let tokenizer = pieces(&sentencepiece());
    let bytes = |token: &str| tokenizer.token_bytes(tokenizer.token_id(token).unwrap()).unwrap();
    assert_eq!(bytes("▁a"), b" a");
    assert_eq!(bytes("<0xE4>"), [0xe4]);
    assert_eq!(bytes("</s>"), b"</s>");
    assert_eq!(tokenizer.token_bytes(9_999).unwrap(), b"");
}

#[test]
fn encoding_with_special_tokens_prepends_the_bos_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    write_with_first_token(&path);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let plain = tokenizer.encode("ab").unwrap();
    assert_eq!(tokenizer.encode_with_special_tokens("ab").unwrap(), [vec![1], plain].concat());
}

fn write_with_first_token(path: &Path) {
    pieces(&sentencepiece()).inner.save(path, false).unwrap();
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let first = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    file["post_processor"] = json!({
        "type": "TemplateProcessing", "single": [first, text("A")],
        "pair": [first, text("A"), text("B")],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}});
    std::fs::write(path, file.to_string()).unwrap();
}

/// Reference implementation: tries all positions for the first and longest stop string.
fn cut_by_hand(text: &str, stops: &[String]) -> String {
    let positions = (0..=text.len()).filter(|at| text.is_char_boundary(*at));
    let mut ends = positions.filter_map(|end| {
        let found = stops.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(*stop));
        found.map(|stop| end - stop.len()).min()
    });
    text[..ends.next().unwrap_or(text.len())].to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn streamed_text_equals_decoding_all_ids_at_once(
        which in 0usize..7,
        ids in prop::collection::vec(prop_oneof![0u32..320, 255u32..275], 0..40),
    ) {
        let tokenizer = &TOKENIZERS[which];
        // One decoder does not support an empty list.
        prop_assume!(!ids.is_empty() && ids.iter().any(|id| tokenizer.inner.id_to_token(*id).is_some_and(
            |token| !tokenizer.inner.get_added_vocabulary().is_special_token(&token))));
        let whole = tokenizer.decode(&ids, SpecialTokens::Skip).unwrap();
        prop_assert_eq!(streamed(tokenizer, &ids, &[]), whole);
    }

    #[test]
    fn the_result_does_not_depend_on_token_boundaries(
        text in "[ab<é🦀 ]{0,40}",
        stops in prop::collection::vec("[ab<é🦀]{0,4}", 0..4),
        cuts in prop::collection::vec(any::<bool>(), 200),
    ) {
        let tokenizer = &TOKENIZERS[0];
        let bytes = bytes(tokenizer, &text);
        let mut ids = Vec::new();
        let mut from = 0;
        for (at, cut) in (1..=text.len()).zip(cuts) {
            // The longest tokens between two cuts, and bytes where a character is cut.
            if cut || at == text.len() {
                match text.get(from..at) {
                    Some(piece) => ids.extend(tokenizer.encode(piece).unwrap()),
                    None => ids.extend(&bytes[from..at]),
                }
                from = at;
            }
        }
        let mut stream = TextStream::new(tokenizer.clone(), SpecialTokens::Skip).with_stop_strings(stops.clone(), 0);
        let pieces = pieces_of(&mut stream, &ids);
        prop_assert_eq!(pieces.concat(), cut_by_hand(&text, &stops));
        prop_assert_eq!(stream.stop_string().is_some(), cut_by_hand(&text, &stops) != text);
    }
}
