//! Where a text can be cut without changing its tokens, and how many tokens it has at least.

use std::ops::RangeInclusive;

use serde_json::Value;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};
use unicode_normalization_alignments::UnicodeNormalization as _;

/// What is known of a tokenizer.
#[derive(Debug)]
pub(super) struct TextBounds {
    cuts: Cuts,
    longest: Option<LongestTokens>,
}

/// Where texts can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cuts {
    /// Between a letter and a following [`is_separator`].
    AfterLetters,
    /// Nowhere, as far as we know.
    Nowhere,
}

/// For each byte, the length of the longest token that contains it.
///
/// A token of `n` bytes counts each of its bytes as 1/n or less, so the sum over the bytes of a text is at most its
/// number of tokens.
#[derive(Debug)]
struct LongestTokens {
    bytes: [u32; 256],
    normalizer: Normalizer,
}

/// What a normalizer does to the bytes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Normalizer {
    /// It leaves them, adds some, or writes spaces as another character that decodes to a space.
    Keep,
    /// Unicode's canonical composition.
    Nfc,
}

impl TextBounds {
    /// The bounds of a tokenizer, given the text of its tokens.
    pub(super) fn of(inner: &Tokenizer, token_bytes: impl Fn(u32) -> Option<Vec<u8>>) -> Self {
        let json = |value: Result<Value, serde_json::Error>| value.unwrap_or(Value::Null);
        let normalizer = inner.get_normalizer();
        let normalizer = normalizer.map(|it| json(serde_json::to_value(it)));
        let splits = inner.get_pre_tokenizer().map(|it| json(serde_json::to_value(it)));
        let splits = splits.as_ref().map(flattened).unwrap_or_default();
        let added = inner.get_added_tokens_decoder();
        let normalizer = normalizer.as_ref().map_or(Some(Normalizer::Keep), Normalizer::of);
        let is_separable = inner.get_normalizer().is_none() || normalizer == Some(Normalizer::Nfc);
        let cuts = match is_separable && separate(&splits) && added.values().all(is_cuttable) {
            true => Cuts::AfterLetters,
            false => Cuts::Nowhere,
        };
        let drops = splits.iter().any(|split| drops_text(split));
        let strips = added.values().any(|token| token.lstrip || token.rstrip);
        let longest = match (normalizer, drops || strips) {
            (Some(normalizer), false) => LongestTokens::of(inner, normalizer, token_bytes),
            _ => None,
        };
        Self { cuts, longest }
    }

    /// Splits a text after about `bytes` bytes, or later, where the tokens of both parts are those of the whole.
    pub(super) fn split<'a>(&self, text: &'a str, bytes: usize) -> (&'a str, &'a str) {
        let cut = match self.cuts {
            Cuts::AfterLetters if text.len() > bytes => cut_after(text, bytes),
            _ => None,
        };
        text.split_at(cut.unwrap_or(text.len()))
    }

    /// A lower bound of a text's number of tokens.
    pub(super) fn least_tokens(&self, text: &str) -> usize {
        self.longest.as_ref().map_or(0, |longest| longest.least_tokens(text))
    }
}

/// The first cut at `from` or after it.
fn cut_after(text: &str, from: usize) -> Option<usize> {
    let from = text.floor_char_boundary(from);
    let mut before = text[..from].chars().next_back();
    text[from..].char_indices().find_map(|(at, character)| {
        let letter = before.replace(character).is_some_and(is_letter);
        (letter && is_separator(character)).then_some(from + at)
    })
}

/// Blocks that consist of letters (`\p{L}`) in all versions of Unicode.
const LETTERS: [RangeInclusive<char>; 10] = [
    'a'..='z',
    'A'..='Z',
    '\u{c0}'..='\u{d6}',
    '\u{d8}'..='\u{f6}',
    '\u{f8}'..='\u{24f}',
    '\u{410}'..='\u{44f}',
    '\u{3041}'..='\u{3096}',
    '\u{30a1}'..='\u{30fa}',
    '\u{4e00}'..='\u{9fa5}',
    '\u{ac00}'..='\u{d7a3}',
];

fn is_letter(character: char) -> bool {
    LETTERS.iter().any(|range| range.contains(&character))
}

/// Characters that are neither letters, marks nor apostrophes, and that composition never joins with the one before.
fn is_separator(character: char) -> bool {
    matches!(character, ' ' | '\n' | '\r' | '\t' | '，' | '。')
}

/// The steps of a pre-tokenizer.
fn flattened(pre_tokenizer: &Value) -> Vec<&Value> {
    match pre_tokenizer["pretokenizers"].as_array() {
        Some(list) => list.iter().flat_map(flattened).collect(),
        None => vec![pre_tokenizer],
    }
}

/// Whether these pre-tokenizers split between a letter and a separator, whatever follows.
fn separate(splits: &[&Value]) -> bool {
    let (last, others) = match splits.split_last() {
        Some((last, others)) if last["type"] == "ByteLevel" => (Some(*last), others),
        _ => (None, splits),
    };
    // After a byte-level pre-tokenizer, spaces are letters.
    let own = last.is_some_and(|it| it["add_prefix_space"] == false && it["use_regex"] == true);
    let adds = last.is_some_and(|it| it["add_prefix_space"] != false);
    let patterns: Option<Vec<Vec<&str>>> = others.iter().map(|split| alternatives(split)).collect();
    let Some(patterns) = patterns.filter(|_| !adds) else { return false };
    let is_known = |part: &&str| OTHERS.contains(part) || WORDS.contains(part);
    let has_words = patterns.iter().flatten().any(|part| WORDS.contains(part));
    patterns.iter().flatten().all(is_known) && (has_words || own)
}

/// Alternatives that match words: at most one character and then letters, as many as there are.
const WORDS: [&str; 2] = [r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?\p{L}+"];

/// Further alternatives of the patterns in use. None looks behind, or matches a separator after a letter.
const OTHERS: [&str; 15] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"'(?:[sdmt]|ll|ve|re)",
    r"'s|'t|'re|'ve|'m|'ll|'d",
    r"\p{N}",
    r"\p{N}{1,3}",
    r" ?\p{N}+",
    r" ?-?\p{N}+(?:\.\p{N}+)?",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{N}]+",
    r"[^\s\p{L}\p{N}]",
    r"\s*[\r\n]+",
    r"\s*[\r\n]",
    r"\s+(?!\S)",
    r"\s+",
    r"\s",
];

/// The alternatives of a split that isolates the matches of a regular expression.
fn alternatives(split: &Value) -> Option<Vec<&str>> {
    let isolates =
        split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] == false;
    let pattern = split["pattern"]["Regex"].as_str().filter(|_| isolates)?;
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in pattern.char_indices() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '|' if depth == 0 => {
                parts.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&pattern[start..]);
    Some(parts)
}

/// Whether no cut interrupts an added token or changes where it is found.
fn is_cuttable(token: &AddedToken) -> bool {
    let text = token.content.as_str();
    let ends_in_letter = text.chars().next_back().is_some_and(is_letter);
    !token.single_word && cut_after(text, 0).is_none() && !(token.rstrip && ends_in_letter)
}

/// Whether a pre-tokenizer may remove text.
fn drops_text(split: &Value) -> bool {
    match split["type"].as_str() {
        Some("ByteLevel" | "Digits" | "Metaspace") => false,
        Some("Split") => split["behavior"] == "Removed",
        _ => true,
    }
}

impl Normalizer {
    fn of(normalizer: &Value) -> Option<Self> {
        match normalizer["type"].as_str()? {
            "NFC" => Some(Self::Nfc),
            "Prepend" => Some(Self::Keep),
            "Replace" if normalizer["pattern"]["String"] == " " => {
                (normalizer["content"] == "▁").then_some(Self::Keep)
            }
            "Sequence" => {
                let parts = normalizer["normalizers"].as_array()?.iter().map(Self::of);
                let parts: Vec<Self> = parts.collect::<Option<_>>()?;
                let composes = parts.contains(&Self::Nfc);
                (!composes || parts.len() == 1).then_some(if composes {
                    Self::Nfc
                } else {
                    Self::Keep
                })
            }
            _ => None,
        }
    }
}

impl LongestTokens {
    /// `None` unless every byte of a text is part of a token.
    fn of(
        inner: &Tokenizer,
        normalizer: Normalizer,
        token_bytes: impl Fn(u32) -> Option<Vec<u8>>,
    ) -> Option<Self> {
        let ModelWrapper::BPE(_) = inner.get_model() else { return None };
        let (mut bytes, mut alone) = ([1; 256], [false; 256]);
        let ids = inner.get_vocab(true).into_values();
        for id in ids {
            let token = token_bytes(id)?;
            if let [byte] = token[..] {
                alone[usize::from(byte)] = true;
            }
            let length = u32::try_from(token.len()).ok()?;
            for byte in token {
                let longest = &mut bytes[usize::from(byte)];
                *longest = length.max(*longest);
            }
        }
        // Bytes that no UTF-8 text contains may be missing.
        let is_used = |byte: usize| !matches!(byte, 0xc0 | 0xc1 | 0xf5..);
        (0..256)
            .filter(|byte| is_used(*byte))
            .all(|byte| alone[byte])
            .then_some(Self { bytes, normalizer })
    }

    fn least_tokens(&self, text: &str) -> usize {
        let mut counts = [0_u64; 256];
        let mut count = |byte: u8| counts[usize::from(byte)] += 1;
        match self.normalizer {
            Normalizer::Nfc if !text.is_ascii() => {
                let mut buffer = [0; 4];
                for (character, _) in text.chars().nfc() {
                    character.encode_utf8(&mut buffer).bytes().for_each(&mut count);
                }
            }
            _ => text.bytes().for_each(count),
        }
        let share = |(count, length): (&u64, &u32)| *count as f64 / f64::from(*length);
        let sum: f64 = counts.iter().zip(&self.bytes).map(share).sum();
        // A little less, for rounding.
        (sum * (1.0 - 1e-9)).ceil() as usize
    }
}
