use embodied_r_policy::SamplingParams;
use embodied_r_policy::tokenizer::{Placeholders, SpecialTokens, write_byte_tokenizer};

use super::*;
use crate::request::ResponseMode;

fn tokenizer() -> Arc<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    write_byte_tokenizer(dir.path(), 259, 256, Placeholders::None).unwrap();
    Arc::new(Tokenizer::from_dir(dir.path()).unwrap())
}

fn choice(tokenizer: &Arc<Tokenizer>, stop: &[&str], stop_token_ids: &[u32]) -> Choice {
    let stop_ids = [&[258], stop_token_ids].concat();
    let settings = Settings {
        sampling: SamplingParams { stop_ids, logprobs: Some(1), ..SamplingParams::default() },
        stop_token_ids: stop_token_ids.to_vec(),
        max_tokens: None,
        n: 1,
        seed: None,
        stop: stop.iter().map(ToString::to_string).collect(),
        special: SpecialTokens::Skip,
        response_mode: ResponseMode::Whole,
    };
    Choice::new(tokenizer, &Arc::new(settings))
}

fn token(id: u32) -> SampledToken {
    SampledToken {
        id,
        logp: -0.5,
        logprobs: Some(TokenLogprobs { logprob: -0.5, top_logprobs: vec![(id, -0.5)] }),
    }
}

/// The deltas of a choice that generates the bytes of `text` and then ends.
fn pieces(
    choice: &mut Choice,
    tokenizer: &Tokenizer,
    text: &str,
    finish: FinishReason,
) -> Vec<Piece> {
    let ids = tokenizer.encode(text).unwrap();
    let mut pieces: Vec<Piece> =
        ids.into_iter().map(|id| choice.take(token(id)).unwrap()).collect();
    pieces.extend(choice.finish(finish).unwrap());
    pieces
}

fn collected(pieces: &[Piece]) -> (String, Vec<String>, Option<End>) {
    let text = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let tokens =
        pieces.iter().flat_map(|piece| &piece.logprobs).map(|of| of.token.text()).collect();
    (text, tokens, pieces.iter().find_map(|piece| piece.end.clone()))
}

#[test]
fn tokens_of_a_stop_string_are_in_neither_the_text_nor_the_logprobs() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &["cd"], &[]);
    let pieces = pieces(&mut choice, &tokenizer, "abcd", FinishReason::Length);
    let (text, tokens, end) = collected(&pieces);
    assert_eq!((text.as_str(), tokens), ("ab", vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(end, Some(End { reason: "stop", matched: json!("cd") }));
    assert_eq!(choice.tokens(), 4);
}

#[test]
fn a_tokens_logprob_is_returned_with_its_text() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &["bx"], &[]);
    let pieces = pieces(&mut choice, &tokenizer, "abc", FinishReason::Length);
    let counts: Vec<usize> = pieces.iter().map(|piece| piece.logprobs.len()).collect();
    assert_eq!(counts, [1, 0, 2, 0]);
    let offsets: Vec<usize> =
        pieces.iter().flat_map(|piece| &piece.logprobs).map(|of| of.offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
    assert_eq!(collected(&pieces).2, Some(End { reason: "length", matched: Value::Null }));
}

#[test]
fn offsets_count_characters_and_not_bytes() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &[], &[]);
    let pieces = pieces(&mut choice, &tokenizer, "äb", FinishReason::Length);
    let logprobs: Vec<&Logprob> = pieces.iter().flat_map(|piece| &piece.logprobs).collect();
    assert_eq!(logprobs.iter().map(|of| of.offset).collect::<Vec<_>>(), [0, 0, 1]);
    let bytes: Vec<u8> = logprobs.iter().flat_map(|of| of.token.bytes.clone()).collect();
    assert_eq!(bytes, "äb".as_bytes());
}

#[test]
fn a_token_after_an_incomplete_character_follows_its_replacement() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &[], &[]);
    let half = tokenizer.encode("ä").unwrap()[0];
    let b = tokenizer.encode("b").unwrap()[0];
    assert_eq!(choice.take(token(half)).unwrap().logprobs[0].offset, 0);
    let piece = choice.take(token(b)).unwrap();
    assert_eq!((piece.text.as_str(), piece.logprobs[0].offset), ("\u{fffd}b", 1));
}

#[test]
fn a_requested_stop_id_is_the_stop_reason_and_the_models_own_is_not() {
    let tokenizer = tokenizer();
    let x = tokenizer.encode("x").unwrap()[0];
    let mut requested = choice(&tokenizer, &[], &[x]);
    let (text, _, end) = collected(&pieces(&mut requested, &tokenizer, "ax", FinishReason::Stop));
    assert_eq!((text.as_str(), end), ("a", Some(End { reason: "stop", matched: json!(x) })));
    let mut own = choice(&tokenizer, &[], &[x]);
    let (text, _, end) =
        collected(&pieces(&mut own, &tokenizer, "a<|im_end|>", FinishReason::Stop));
    assert_eq!((text.as_str(), end), ("a", Some(End { reason: "stop", matched: Value::Null })));
}

#[test]
fn nothing_is_returned_after_a_stop_string() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &["b"], &[]);
    let pieces = pieces(&mut choice, &tokenizer, "abcc", FinishReason::Stop);
    assert!(choice.has_ended());
    assert_eq!(pieces[2..], [Piece::default(), Piece::default()]);
}

#[test]
fn a_logprob_of_minus_infinity_is_a_finite_number() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &[], &[]);
    let report = TokenLogprobs { logprob: f32::NEG_INFINITY, top_logprobs: Vec::new() };
    let piece = choice.take(SampledToken { id: 100, logp: 0.0, logprobs: Some(report) }).unwrap();
    assert_eq!(piece.logprobs[0].token.logprob, MIN_LOGPROB);
}
