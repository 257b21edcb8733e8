use embodied_r_policy::Sampling;
use embodied_r_policy::tokenizer::{Special, TrainOptions, train};

use super::*;
use crate::request::Reply;

fn tokenizer() -> Arc<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions { vocab_size: 259, min_frequency: 9 };
    train(["a"], &options, dir.path()).unwrap();
    Arc::new(Tokenizer::from_dir(dir.path()).unwrap())
}

fn choice(tokenizer: &Arc<Tokenizer>, stop: &[&str], stop_token_ids: &[u32]) -> Choice {
    let stop_ids = [&[2], stop_token_ids].concat();
    let settings = Settings {
        sampling: Sampling { stop_ids, logprobs: Some(1), ..Sampling::default() },
        stop_token_ids: stop_token_ids.to_vec(),
        max_tokens: None,
        n: 1,
        seed: None,
        stop: stop.iter().map(ToString::to_string).collect(),
        special: Special::Skip,
        reply: Reply::Whole,
    };
    Choice::new(tokenizer, &Arc::new(settings))
}

fn token(id: u32) -> Token {
    Token { id, logp: -0.5, report: Some(Report { logprob: -0.5, top: vec![(id, -0.5)] }) }
}

/// The pieces of a choice that draws the bytes of `text` and then ends.
fn pieces(choice: &mut Choice, tokenizer: &Tokenizer, text: &str, finish: Finish) -> Vec<Piece> {
    let ids = tokenizer.encode(text).unwrap();
    let mut pieces: Vec<Piece> =
        ids.into_iter().map(|id| choice.take(token(id)).unwrap()).collect();
    pieces.extend(choice.finish(finish).unwrap());
    pieces
}

fn told(pieces: &[Piece]) -> (String, Vec<String>, Option<End>) {
    let text = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let tokens =
        pieces.iter().flat_map(|piece| &piece.logprobs).map(|of| of.token.text()).collect();
    (text, tokens, pieces.iter().find_map(|piece| piece.end.clone()))
}

#[test]
fn tokens_of_a_stop_string_are_told_neither_as_text_nor_as_log_probabilities() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &["cd"], &[]);
    let pieces = pieces(&mut choice, &tokenizer, "abcd", Finish::Length);
    let (text, tokens, end) = told(&pieces);
    assert_eq!((text.as_str(), tokens), ("ab", vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(end, Some(End { reason: "stop", met: json!("cd") }));
    assert_eq!(choice.tokens(), 4);
}

#[test]
fn a_token_is_told_with_the_text_that_waited_for_it() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &["bx"], &[]);
    let pieces = pieces(&mut choice, &tokenizer, "abc", Finish::Length);
    let counts: Vec<usize> = pieces.iter().map(|piece| piece.logprobs.len()).collect();
    assert_eq!(counts, [1, 0, 2, 0]);
    let offsets: Vec<usize> =
        pieces.iter().flat_map(|piece| &piece.logprobs).map(|of| of.offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
    assert_eq!(told(&pieces).2, Some(End { reason: "length", met: Value::Null }));
}

#[test]
fn offsets_count_letters_and_not_bytes() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &[], &[]);
    let pieces = pieces(&mut choice, &tokenizer, "äb", Finish::Length);
    let logprobs: Vec<&Logprob> = pieces.iter().flat_map(|piece| &piece.logprobs).collect();
    assert_eq!(logprobs.iter().map(|of| of.offset).collect::<Vec<_>>(), [0, 0, 1]);
    let bytes: Vec<u8> = logprobs.iter().flat_map(|of| of.token.bytes.clone()).collect();
    assert_eq!(bytes, "äb".as_bytes());
}

#[test]
fn a_token_behind_half_a_character_stands_behind_what_replaces_it() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &[], &[]);
    let half = tokenizer.encode("ä").unwrap()[0];
    let b = tokenizer.encode("b").unwrap()[0];
    assert_eq!(choice.take(token(half)).unwrap().logprobs[0].offset, 0);
    let piece = choice.take(token(b)).unwrap();
    assert_eq!((piece.text.as_str(), piece.logprobs[0].offset), ("\u{fffd}b", 1));
}

#[test]
fn a_stop_id_that_was_asked_for_is_told_and_the_models_own_is_not() {
    let tokenizer = tokenizer();
    let x = tokenizer.encode("x").unwrap()[0];
    let mut asked = choice(&tokenizer, &[], &[x]);
    let (text, _, end) = told(&pieces(&mut asked, &tokenizer, "ax", Finish::Stop));
    assert_eq!((text.as_str(), end), ("a", Some(End { reason: "stop", met: json!(x) })));
    let mut own = choice(&tokenizer, &[], &[x]);
    let (text, _, end) = told(&pieces(&mut own, &tokenizer, "a<|im_end|>", Finish::Stop));
    assert_eq!((text.as_str(), end), ("a", Some(End { reason: "stop", met: Value::Null })));
}

#[test]
fn nothing_is_told_after_a_stop_string() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &["b"], &[]);
    let pieces = pieces(&mut choice, &tokenizer, "abcc", Finish::Stop);
    assert!(choice.has_ended());
    assert_eq!(pieces[2..], [Piece::default(), Piece::default()]);
}

#[test]
fn a_log_probability_of_minus_infinity_is_a_number() {
    let tokenizer = tokenizer();
    let mut choice = choice(&tokenizer, &[], &[]);
    let report = Report { logprob: f32::NEG_INFINITY, top: Vec::new() };
    let piece = choice.take(Token { id: 100, logp: 0.0, report: Some(report) }).unwrap();
    assert_eq!(piece.logprobs[0].token.logprob, LEAST_LOGPROB);
}
