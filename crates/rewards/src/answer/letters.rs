//! Extraction of option letters.

use std::collections::BTreeSet;

use super::characters::{fold, is_latin};

/// Words around a letter that carry no other meaning.
const FRAMING_WORDS: [&str; 17] = [
    "the",
    "my",
    "is",
    "correct",
    "right",
    "best",
    "final",
    "answer",
    "option",
    "choice",
    "letter",
    "be",
    "would",
    "ответ",
    "вариант",
    "правильный",
    "верный",
];

/// The same in scripts that write several words as one, the longer first.
const FRAMING_PARTS: [&str; 38] = [
    "입니다",
    "正确",
    "正確",
    "最终",
    "最終",
    "最佳",
    "答案",
    "选项",
    "選項",
    "选择",
    "選擇",
    "回答",
    "应该",
    "應該",
    "所以",
    "因此",
    "正解",
    "解答",
    "答え",
    "です",
    "정답",
    "이다",
    "선택",
    "应",
    "應",
    "选",
    "選",
    "故",
    "答",
    "是",
    "为",
    "為",
    "我",
    "の",
    "は",
    "답",
    "은",
    "는",
];

/// Words after which a letter names an option, even inside an option's text.
const INTRODUCING_WORDS: [&str; 17] = [
    "option", "choice", "answer", "is", "be", "or", "and", "nor", "also", "maybe", "perhaps",
    "possibly", "probably", "but", "not", "или", "и",
];

/// The same in scripts that write several words as one.
const INTRODUCING_PARTS: [&str; 22] = [
    "或",
    "或者",
    "或是",
    "和",
    "与",
    "與",
    "及",
    "还是",
    "還是",
    "也",
    "都",
    "是",
    "为",
    "选",
    "選",
    "选项",
    "可能",
    "また",
    "または",
    "と",
    "또는",
    "혹은",
];

/// Words that deny the option after them.
const DENYING_WORDS: [&str; 5] = ["not", "isn't", "isn’t", "never", "не"];

/// The same in scripts that write several words as one.
const DENYING_PARTS: [&str; 5] = ["不是", "不选", "不選", "不为", "非"];

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
    let framed = words.iter().take_while(|word| word.is_framing()).count();
    let naming: Vec<&Word<'_>> = match words.get(framed) {
        Some(label) if label.is_label() => {
            std::iter::once(label).chain(in_option_text(&words[framed + 1..])).collect()
        }
        _ => words
            .iter()
            .enumerate()
            .filter(|&(index, word)| !word.is_article(words.get(index + 1)))
            .map(|(_, word)| word)
            .collect(),
    };
    let naming = naming.iter().filter(|word| word.upper_letter().is_some());
    match naming.clone().any(|word| word.denied) {
        true => BTreeSet::new(),
        false => naming.filter_map(|word| word.upper_letter()).collect(),
    }
}

/// `text` in ASCII where it has the characters, without markup around letters.
fn without_markup(text: &str) -> String {
    let text = fold(text);
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
    /// Whether the previous word denies it.
    denied: bool,
}

/// The words of `text`: letters and digits, with apostrophes and hyphens inside. Latin letters and others make no common
/// word: `答案是B` has two.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut previous = ' ';
    // The last letter of the word so far.
    let mut letter: Option<char> = None;
    for (at, char) in text.char_indices() {
        let end = at + char.len_utf8();
        let joins = matches!(previous, '\'' | '’' | '-');
        let one_script =
            !char.is_alphabetic() || letter.is_none_or(|letter| is_latin(letter) == is_latin(char));
        match spans.last_mut() {
            _ if !char.is_alphanumeric() => {}
            Some(span) if one_script && span.1 == at => span.1 = end,
            Some(span) if one_script && joins && span.1 + previous.len_utf8() == at => span.1 = end,
            _ => {
                spans.push((at, end));
                letter = None;
            }
        }
        if char.is_alphabetic() {
            letter = Some(char);
        }
        previous = char;
    }
    let starts_after = |index: usize| spans.get(index + 1).map_or(text.len(), |next| next.0);
    let mut end_before = 0;
    let mut words: Vec<Word<'_>> = Vec::with_capacity(spans.len());
    for (index, &(start, end)) in spans.iter().enumerate() {
        words.push(Word {
            text: &text[start..end],
            before: &text[end_before..start],
            after: &text[end..starts_after(index)],
            last: index + 1 == spans.len(),
            denied: words.last().is_some_and(Word::denies),
        });
        end_before = end;
    }
    words
}

impl Word<'_> {
    fn is_one_of(&self, list: &[&str]) -> bool {
        let text = self.text.to_lowercase();
        list.iter().any(|entry| *entry == text)
    }

    /// Whether the word, or each part of it, is one that frames a letter.
    fn is_framing(&self) -> bool {
        let mut rest = self.text;
        while let Some(after) = FRAMING_PARTS.iter().find_map(|part| rest.strip_prefix(part)) {
            rest = after;
        }
        rest.is_empty() || self.is_one_of(&FRAMING_WORDS)
    }

    /// Whether a letter after this word names an option.
    fn introduces(&self) -> bool {
        self.is_one_of(&INTRODUCING_WORDS)
            || INTRODUCING_PARTS.iter().any(|part| self.text.ends_with(part))
    }

    fn denies(&self) -> bool {
        self.is_one_of(&DENYING_WORDS) || DENYING_PARTS.iter().any(|part| self.text.ends_with(part))
    }

    /// Whether a letter before this word stands for itself.
    fn goes_on(&self) -> bool {
        self.is_one_of(&INTRODUCING_WORDS)
            || INTRODUCING_PARTS.iter().any(|part| self.text.starts_with(part))
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

    /// `B.`, `B)`, `[B]`, `B:`, `B、`, `【B】`.
    fn is_label(&self) -> bool {
        self.upper_letter().is_some()
            && self.after.starts_with(['.', ')', ']', ':', '、', '。', '】', '」', '』', '》'])
    }

    fn is_bracketed(&self) -> bool {
        self.before.ends_with(['(', '[', '【', '「', '『', '《'])
            && self.after.starts_with([')', ']', '】', '」', '』', '》'])
    }

    /// Whether this letter is the article before `next`: `A tree`, `A "Keep Out" sign`.
    fn is_article(&self, next: Option<&Word<'_>>) -> bool {
        let Some(next) = next.filter(|_| self.upper_letter() == Some('A')) else {
            return false;
        };
        let quoted = self.after.trim_start().starts_with(['"', '\'', '“', '‘']);
        let other_script = next.text.starts_with(|first| !is_latin(first) && !first.is_numeric());
        let lower = next.text.starts_with(|first: char| !first.is_uppercase());
        self.after.starts_with(char::is_whitespace)
            && !other_script
            && (quoted
                || (self.after.trim().is_empty() && lower && !next.is_one_of(&NEVER_AFTER_ARTICLE)))
    }
}

/// The letter of a text with only framing words besides it.
fn sole_letter(words: &[Word<'_>]) -> Option<char> {
    let mut others = words.iter().filter(|word| !word.is_framing());
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
            Some(next) => !word.after.trim().is_empty() || next.goes_on(),
        };
        let introduced = match index.checked_sub(1).map(|before| &words[before]) {
            None => true,
            Some(before) => before.introduces() || before.upper_letter().is_some(),
        };
        (introduced && named_apart).then_some(word)
    })
}
