//! Marks special tokens in the texts of a conversation, before they are rendered.
//!
//! A template moves, trims and joins texts, so what it renders does not show any more which special tokens are its own.
//! A mark inside each special token of a message survives all of that.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

/// Characters without a meaning of their own: Unicode's noncharacters, then those for private use.
const CANDIDATES: [std::ops::RangeInclusive<char>; 2] =
    ['\u{fdd0}'..='\u{fdef}', '\u{f0000}'..='\u{ffffd}'];

/// A mark that occurs in none of `texts`; `None` if all do.
pub(super) fn unused_mark<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<char> {
    let is_candidate = |c: &char| CANDIDATES.iter().any(|range| range.contains(c));
    let used: HashSet<char> = texts.into_iter().flat_map(str::chars).filter(is_candidate).collect();
    CANDIDATES.into_iter().flatten().find(|candidate| !used.contains(candidate))
}

/// `text` with `mark` at these ascending byte offsets.
pub(super) fn with_marks(text: &str, breaks: &[usize], mark: char) -> String {
    let mut marked = String::with_capacity(text.len() + breaks.len() * mark.len_utf8());
    let mut start = 0;
    for &at in breaks {
        marked.push_str(&text[start..at]);
        marked.push(mark);
        start = at;
    }
    marked.push_str(&text[start..]);
    marked
}

/// Finds what a tokenizer reads as special tokens in the texts of messages.
#[derive(Debug, Default)]
pub(super) struct Contents {
    special: Vec<String>,
    /// The first two characters of each special token, in lower case.
    starts: BTreeSet<(char, char)>,
    /// Added tokens that are not special.
    added: Vec<String>,
}

impl Contents {
    /// For a tokenizer with these added tokens.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = &'a AddedToken>) -> Self {
        let mut contents = Self::default();
        for token in tokens {
            let mut characters = token.content.chars().map(|c| c.to_ascii_lowercase());
            // A single character has no inside for a mark.
            let Some(start) = characters.next().zip(characters.next()) else { continue };
            if token.special {
                contents.starts.insert(start);
                contents.special.push(token.content.clone());
            } else {
                contents.added.push(token.content.clone());
            }
        }
        contents
    }

    /// Byte offsets in `text` after the first character of each special token, and of each beginning of one: a template
    /// may join it with another text.
    pub(super) fn breaks(&self, text: &str) -> Vec<usize> {
        let first = |character: char| {
            let first = character.to_ascii_lowercase();
            self.starts.range((first, '\0')..=(first, char::MAX)).next().is_some()
        };
        let written = text.trim_end().len();
        let found = text.match_indices(first).filter(|(at, first)| {
            let (at, after) = (*at, at + first.len());
            let pair = text[at..].chars().map(|c| c.to_ascii_lowercase());
            let begins = after >= written
                || pair
                    .clone()
                    .next()
                    .zip(pair.clone().nth(1))
                    .is_some_and(|pair| self.starts.contains(&pair));
            let begins_with =
                |tokens: &[String]| tokens.iter().any(|token| text[at..].starts_with(token));
            begins && (!begins_with(&self.added) || begins_with(&self.special))
        });
        found.map(|(at, first)| at + first.len()).collect()
    }

    /// Inserts a mark, a character that occurs in no text, at the breaks of all texts and returns it; `None` if there
    /// are no breaks.
    ///
    /// # Errors
    /// [`NoMark`].
    pub(super) fn mark(&self, value: &mut Value) -> Result<Option<char>, NoMark> {
        let mut texts = Vec::new();
        collect(value, &mut texts);
        if texts.iter().all(|text| self.breaks(text).is_empty()) {
            return Ok(None);
        }
        let mark = unused_mark(texts).ok_or(NoMark)?;
        self.insert(value, mark);
        Ok(Some(mark))
    }

    fn insert(&self, value: &mut Value, mark: char) {
        let marked = |text: &str| with_marks(text, &self.breaks(text), mark);
        match value {
            Value::String(text) => *text = marked(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.insert(value, mark)),
            Value::Object(map) => {
                let entries = std::mem::take(map).into_iter().map(|(key, mut value)| {
                    self.insert(&mut value, mark);
                    (marked(&key), value)
                });
                *map = entries.collect::<Map<_, _>>();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// A text has special tokens, and every character that could be a mark.
#[derive(Debug, thiserror::Error)]
#[error("the text has special tokens and all private-use characters, remove either")]
pub(super) struct NoMark;

/// The texts of a value, keys of objects included.
fn collect<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(list) => list.iter().for_each(|value| collect(value, texts)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            texts.push(key);
            collect(value, texts);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
