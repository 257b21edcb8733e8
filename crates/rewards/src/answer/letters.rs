//! Extraction of option letters.

use std::collections::BTreeSet;

/// Words around a letter that carry no other meaning.
const FRAMING_WORDS: [&str; 13] = [
    "the", "my", "is", "correct", "right", "best", "final", "answer", "option", "choice", "letter",
    "be", "would",
];

/// Words after which a letter names an option, even inside an option's text.
const INTRODUCING_WORDS: [&str; 15] = [
    "option", "choice", "answer", "is", "be", "or", "and", "nor", "also", "maybe", "perhaps",
    "possibly", "probably", "but", "not",
];

/// Words that never follow the article `A`.
const NEVER_AFTER_ARTICLE: [&str; 18] = [
    "is", "was", "are", "would", "seems", "or", "and", "nor", "but", "not", "because", "since",
    "as", "if", "from", "based", "the", "i",
];

/// The upper-case option letters that `text` names, by the rules of [`super`].
pub(super) fn named_letters(text: &str) -> BTreeSet<char> {
    let text = without_markup(text);
    let words = words(&text);
    if let Some(letter) = sole_letter(&words) {
        return BTreeSet::from([letter]);
    }
    let framed = words.iter().take_while(|word| word.is_one_of(&FRAMING_WORDS)).count();
    match words.get(framed) {
        Some(label) if label.is_label() => std::iter::once(label)
            .chain(in_option_text(&words[framed + 1..]))
            .filter_map(|word| word.upper_letter())
            .collect(),
        _ => words
            .iter()
            .enumerate()
            .filter(|&(index, word)| !word.is_article(words.get(index + 1)))
            .filter_map(|(_, word)| word.upper_letter())
            .collect(),
    }
}

/// Drops markup around letters.
fn without_markup(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                while chars.next_if(char::is_ascii_alphabetic).is_some() {}
                plain.push(' ');
            }
            '{' | '}' => plain.push(' '),
            '$' | '*' | '`' => {}
            other => plain.push(other),
        }
    }
    plain
}

/// A word with its surrounding punctuation.
#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    /// The text between the previous word and this one.
    before: &'a str,
    /// The text between this word and the next.
    after: &'a str,
    last: bool,
}

/// The words of `text`: letters and digits, with apostrophes and hyphens inside.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut previous = ' ';
    for (at, char) in text.char_indices() {
        let end = at + char.len_utf8();
        let joins = matches!(previous, '\'' | '’' | '-');
        match spans.last_mut() {
            _ if !char.is_alphanumeric() => {}
            Some(span) if span.1 == at => span.1 = end,
            Some(span) if joins && span.1 + previous.len_utf8() == at => span.1 = end,
            _ => spans.push((at, end)),
        }
        previous = char;
    }
    let starts_after = |index: usize| spans.get(index + 1).map_or(text.len(), |next| next.0);
    let mut end_before = 0;
    let mut words = Vec::with_capacity(spans.len());
    for (index, &(start, end)) in spans.iter().enumerate() {
        words.push(Word {
            text: &text[start..end],
            before: &text[end_before..start],
            after: &text[end..starts_after(index)],
            last: index + 1 == spans.len(),
        });
        end_before = end;
    }
    words
}

impl Word<'_> {
    fn is_one_of(&self, list: &[&str]) -> bool {
        list.iter().any(|entry| entry.eq_ignore_ascii_case(self.text))
    }

    /// The option letter in either case.
    fn letter(&self) -> Option<char> {
        let mut chars = self.text.chars();
        match (chars.next().map(|first| first.to_ascii_uppercase()), chars.next()) {
            (Some(letter @ 'A'..='H'), None) => Some(letter),
            _ => None,
        }
    }

    fn upper_letter(&self) -> Option<char> {
        self.letter().filter(|_| self.text.starts_with(|first: char| first.is_ascii_uppercase()))
    }

    /// `B.`, `B)`, `[B]`, `B:`, also in full-width forms.
    fn is_label(&self) -> bool {
        self.upper_letter().is_some()
            && self.after.starts_with(['.', ')', ']', ':', '．', '）', '：', '、'])
    }

    fn is_bracketed(&self) -> bool {
        self.before.ends_with(['(', '[', '（']) && self.after.starts_with([')', ']', '）'])
    }

    /// Whether this letter is the article before `next`: `A tree`, `A "Keep Out" sign`.
    fn is_article(&self, next: Option<&Word<'_>>) -> bool {
        let Some(next) = next.filter(|_| self.upper_letter() == Some('A')) else {
            return false;
        };
        let quoted = self.after.trim_start().starts_with(['"', '\'', '“', '‘']);
        let lower = next.text.starts_with(|first: char| !first.is_uppercase());
        self.after.starts_with(char::is_whitespace)
            && (quoted
                || (self.after.trim().is_empty() && lower && !next.is_one_of(&NEVER_AFTER_ARTICLE)))
    }
}

/// The letter of a text with only framing words besides it.
fn sole_letter(words: &[Word<'_>]) -> Option<char> {
    let mut others = words.iter().filter(|word| !word.is_one_of(&FRAMING_WORDS));
    match (others.next(), others.next()) {
        (Some(word), None) => word.letter(),
        _ => None,
    }
}

/// The words within an option's text that name another option.
fn in_option_text<'a, 'b>(words: &'b [Word<'a>]) -> impl Iterator<Item = &'b Word<'a>> {
    words.iter().enumerate().filter_map(move |(index, word)| {
        word.upper_letter()?;
        let next = words.get(index + 1);
        if word.is_article(next) {
            return None;
        }
        let heads_text = word.is_label() && !word.last;
        if heads_text || word.is_bracketed() {
            return Some(word);
        }
        // `or B Street` names a street.
        let named_apart = match next {
            None => true,
            Some(next) => !word.after.trim().is_empty() || next.is_one_of(&INTRODUCING_WORDS),
        };
        let introduced = match index.checked_sub(1).map(|before| &words[before]) {
            None => true,
            Some(before) => before.is_one_of(&INTRODUCING_WORDS) || before.upper_letter().is_some(),
        };
        (introduced && named_apart).then_some(word)
    })
}
