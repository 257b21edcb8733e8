//! Numbers of VSI-Bench's answers, as lmms-eval and VLMEvalKit extract them.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::literal::literal;
use super::pattern::{Pattern, last_end, pattern};
use super::python::{float, strip};
use super::value::Value;

/// lmms-eval's words of numbers.
const WORDS: [(&str, u32); 30] = [
    ("zero", 0),
    ("one", 1),
    ("two", 2),
    ("three", 3),
    ("four", 4),
    ("five", 5),
    ("six", 6),
    ("seven", 7),
    ("eight", 8),
    ("nine", 9),
    ("ten", 10),
    ("eleven", 11),
    ("twelve", 12),
    ("thirteen", 13),
    ("fourteen", 14),
    ("fifteen", 15),
    ("sixteen", 16),
    ("seventeen", 17),
    ("eighteen", 18),
    ("nineteen", 19),
    ("twenty", 20),
    ("thirty", 30),
    ("forty", 40),
    ("fifty", 50),
    ("sixty", 60),
    ("seventy", 70),
    ("eighty", 80),
    ("ninety", 90),
    ("hundred", 100),
    ("thousand", 1000),
];

/// The first number of `answer` in digits or English words, whichever comes first (lmms-eval since 2026-07-14).
pub(crate) fn lmms_number(answer: &str) -> Option<f64> {
    let text = answer.to_lowercase();
    let digits = first_digits(&text);
    let words = first_words(&text);
    match (digits, words) {
        (Some((at, number)), Some((word_at, _))) if at < word_at => Some(number),
        (Some((_, number)), None) => Some(number),
        (_, words) => words.map(|(_, number)| number),
    }
}

/// The first number in digits of any script, with its place: a minus sign directly before it, and decimals.
fn first_digits(text: &str) -> Option<(usize, f64)> {
    static NUMBER: Pattern = LazyLock::new(|| pattern(r"-?\p{Nd}+(?:\.\p{Nd}+)?"));
    let found = NUMBER.as_ref()?.find(text).ok()??;
    Some((found.start(), float(found.as_str())?))
}

/// The first run of number words, with its place. Any other run of letters but "and" ends it.
fn first_words(text: &str) -> Option<(usize, f64)> {
    let (mut start, mut run) = (None, Vec::new());
    for (at, word) in words(text) {
        match WORDS.iter().find(|(known, _)| *known == word) {
            Some((_, value)) => {
                start.get_or_insert(at);
                run.push(*value);
            }
            None if start.is_some() && word != "and" => break,
            None => {}
        }
    }
    Some((start?, value(&run)))
}

/// The runs of the letters a to z, with their places.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_letter = |char: char| char.is_ascii_lowercase();
    let mut at = 0;
    std::iter::from_fn(move || {
        at += text[at..].find(is_letter)?;
        let rest = &text[at..];
        let (start, length) = (at, rest.find(|char| !is_letter(char)).unwrap_or(rest.len()));
        at += length;
        Some((start, &rest[..length]))
    })
}

fn value(run: &[u32]) -> f64 {
    let (mut total, mut current) = (0.0, 0.0_f64);
    for &value in run {
        match value {
            100 => current = current.max(1.0) * 100.0,
            1000 => {
                total += current.max(1.0) * 1000.0;
                current = 0.0;
            }
            value => current += f64::from(value),
        }
    }
    total + current
}

/// A number: sign, digits or decimals, exponent.
const NUMBER: &str = r"[-+]?(?:\p{Nd}*\.\p{Nd}+|\p{Nd}+)(?:[eE][-+]?\p{Nd}+)?";

/// The number of `answer` (VLMEvalKit's `can_match_na`): of an `<answer>` block, else the last one behind the reasoning, else
/// the last one of the text. Words from zero to twenty are digits. A list counts as its first element.
pub(crate) fn easi_number(answer: &str) -> Option<f64> {
    static TAGGED: Pattern = LazyLock::new(|| {
        pattern(&format!(r"(?is)<~answer›[^>]*>~({NUMBER})(?:[^\p{{Nd}}<][^<]*)?<~/~answer~>"))
    });
    let text = first_element(answer)?;
    let text = strip(&text).replace(['\u{200b}', '\u{200c}', '\u{200d}', '\u{feff}'], "");
    let text = with_digits(&text);
    if let Some(found) = TAGGED.as_ref()?.captures(&text).ok()?
        && let Some(number) = found.get(1).and_then(|number| float(number.as_str()))
    {
        return Some(number);
    }
    last_number(after_reasoning(&text)).or_else(|| last_number(&text))
}

/// The text that counts: of a text in brackets the first element of the list that it is in Python; none if it is no list.
fn first_element(answer: &str) -> Option<String> {
    let text = strip(answer);
    if !(text.starts_with('[') && text.ends_with(']')) {
        return Some(answer.to_owned());
    }
    // Python refuses an indented line behind it.
    let after = answer.rsplit(']').next().unwrap_or_default();
    if after.contains('\n') && after.ends_with([' ', '\t']) {
        return None;
    }
    let Value::List(elements) = literal(answer)? else { return Some(answer.to_owned()) };
    Some(elements.first().map_or_else(|| answer.to_owned(), Value::text))
}

/// The text with the whole words zero to twenty as digits.
fn with_digits(text: &str) -> String {
    static NAMES: Pattern = LazyLock::new(|| {
        let names: Vec<&str> = WORDS[..=20].iter().map(|(name, _)| *name).collect();
        pattern(&format!("(?i)‹({})›", names.join("|").replace('i', "[iİı]")))
    });
    let Some(names) = NAMES.as_ref() else { return text.to_owned() };
    let digits = |found: &fancy_regex::Captures<'_>| {
        let name = found[1].to_lowercase();
        let value = WORDS.iter().find(|(known, _)| *known == name);
        value.map_or_else(|| found[0].to_owned(), |(_, value)| value.to_string())
    };
    names.try_replacen(text, 0, digits).map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// The text behind the last end of reasoning, or else its last start.
fn after_reasoning(text: &str) -> &str {
    static END: Pattern = LazyLock::new(|| pattern("(?i)</~th[iİı]nk~>"));
    static START: Pattern = LazyLock::new(|| pattern("(?i)<~th[iİı]nk~>"));
    let end = last_end(&END, text).or_else(|| last_end(&START, text));
    end.map_or(text, |end| strip(&text[end..]))
}

fn last_number(text: &str) -> Option<f64> {
    static PATTERN: Pattern = LazyLock::new(|| pattern(NUMBER));
    float(PATTERN.as_ref()?.find_iter(text).filter_map(Result::ok).last()?.as_str())
}
