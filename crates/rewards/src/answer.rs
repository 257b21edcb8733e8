//! Answer extraction: tags, option letters, numbers, positions.
//!
//! Only the `<answer>` tag counts. Reasoning mentions many letters, so parsing the whole output
//! would reward answers that were never given.
//!
//! Option letters are A to H. Rules within the tag:
//!
//! 1. Markup is dropped: `$`, `*`, backticks, braces and LaTeX commands, so `$\boxed{B}$` is `B`.
//! 2. A sole letter counts in either case: `b`, `(b)`, `Option b.`, `The answer is B`.
//! 3. A leading label (an upper-case letter followed by `.`, `)`, `]` or `:`) introduces the option's
//!    text: `B. A tree`, `(B) I turn left`. Within that text, a letter counts only if it clearly
//!    names another option: `(C)`, `C. …`, `option C`, `or C`.
//! 4. Otherwise every upper-case single-letter word counts, except the article `A`.
//!
//! The same letter may occur several times; different letters make the answer ambiguous. Letters and digits may be
//! full-width, enclosed or mathematical, and stand beside any script: `Ｂ`, `Ⓑ`, `答案是B`. Cyrillic and Greek letters that
//! look like Latin ones are none: the third option of a Russian list is `В`.
//!
//! A number is one with a sign before its digits (`-`, `−` or any dash, or `+`), decimals, thousands separators and an
//! exponent `e3`, and has a unit or none. With a sign, exponent, fraction, operator or word of scale that is not
//! understood, as in `10^3`, `1/2`, `3½`, `±3`, `2–4`, `3 thousand`, the answer has no number.
//!
//! A position is nothing but three finite numbers, separated by commas or white space, in any brackets or none.

mod characters;
mod letters;
mod numbers;
mod position;

use std::collections::BTreeSet;

pub use characters::decimal_digit;
pub(crate) use characters::fold;

/// The four tags of a well-formed completion, in order.
pub const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];

/// Why no unique answer can be extracted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// There is no `<answer>` tag.
    #[error("no `<answer>` tag")]
    NoTag,
    /// The `<answer>` tag is not closed, often because the output was truncated.
    #[error("the `<answer>` tag is not closed")]
    Unclosed,
    /// The tag contains only whitespace.
    #[error("the `<answer>` tag is empty")]
    Empty,
    /// The text names no option.
    #[error("the answer contains no option letter")]
    NoLetter,
    /// The text names more than one option.
    #[error("the answer names several options: {}", join(.0))]
    AmbiguousLetters(BTreeSet<char>),
    /// The text contains no number.
    #[error("the answer contains no number")]
    NoNumber,
    /// The text contains a number in a form that is not read.
    #[error("the number has a form that is not read: write digits, such as `-3.5`")]
    NumberForm,
    /// The text contains several different numbers.
    #[error("the answer contains several numbers")]
    AmbiguousNumbers,
    /// There are several tags with different texts.
    #[error("there are several answers")]
    AmbiguousTexts,
    /// The text is no position.
    #[error("the answer is no position `[x, y, z]`")]
    NoPosition,
}

fn join(letters: &BTreeSet<char>) -> String {
    letters.iter().map(char::to_string).collect::<Vec<_>>().join(", ")
}

/// The untrimmed text of the last `<answer>` tag.
///
/// Tags inside the reasoning are ignored, unless there are none after it.
pub fn answer_tag(completion: &str) -> Option<&str> {
    answer_tags(completion).pop()
}

/// The texts of all `<answer>` tags after the reasoning, or of all tags if none follow it.
pub fn answer_tags(completion: &str) -> Vec<&str> {
    let after = completion.rsplit_once("</think>").map_or(completion, |(_, after)| after);
    let tags = tags(after);
    if tags.is_empty() { self::tags(completion) } else { tags }
}

/// The text between each `</answer>` and the nearest preceding `<answer>`.
fn tags(text: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = text.split("</answer>").collect();
    parts.pop();
    parts.into_iter().filter_map(|part| Some(part.rsplit_once("<answer>")?.1)).collect()
}

/// The untrimmed text of the first `<think>` tag; `None` if it is missing or not closed.
pub fn think_tag(completion: &str) -> Option<&str> {
    let (_, rest) = completion.split_once("<think>")?;
    Some(rest.split_once("</think>")?.0)
}

/// The upper-case option letter that `text` names; `None` for no letter or several different ones.
pub fn option_letter(text: &str) -> Option<char> {
    read_letter(text).ok()
}

/// The upper-case option letter that `text` names.
///
/// # Errors
/// [`AnswerError::Empty`], [`AnswerError::NoLetter`] or [`AnswerError::AmbiguousLetters`].
pub fn read_letter(text: &str) -> Result<char, AnswerError> {
    single_letter(letters::named_letters(text), text.trim().is_empty())
}

/// The option letter in the `<answer>` tag of `completion`. Several tags must agree.
///
/// # Errors
/// Why no unique answer can be extracted.
pub fn letter(completion: &str) -> Result<char, AnswerError> {
    let tags = present_tags(completion)?;
    let named = tags.iter().flat_map(|tag| letters::named_letters(tag)).collect();
    single_letter(named, tags.iter().all(|tag| tag.trim().is_empty()))
}

/// The number in the `<answer>` tag of `completion`. Several tags must agree.
///
/// # Errors
/// Why no unique answer can be extracted.
pub fn number(completion: &str) -> Result<f64, AnswerError> {
    let tags = present_tags(completion)?;
    let mut found = Vec::new();
    for tag in &tags {
        found.extend(numbers::parse_numbers(tag)?);
    }
    single_number(found, tags.iter().all(|tag| tag.trim().is_empty()))
}

/// The number that `text` contains.
///
/// # Errors
/// [`AnswerError::Empty`], [`AnswerError::NoNumber`], [`AnswerError::NumberForm`] or [`AnswerError::AmbiguousNumbers`].
pub fn read_number(text: &str) -> Result<f64, AnswerError> {
    single_number(numbers::parse_numbers(text)?, text.trim().is_empty())
}

/// The number that the whole of `text` is, without a unit: `-3`, `−3`, `1,200`, `2.5e-1`, `３`.
pub fn whole_number(text: &str) -> Option<f64> {
    numbers::whole_number(text)
}

/// The trimmed text in the `<answer>` tag of `completion`. Several tags must agree.
///
/// # Errors
/// Why no unique answer can be extracted.
pub fn text(completion: &str) -> Result<&str, AnswerError> {
    let tags = present_tags(completion)?;
    let mut texts = tags.into_iter().map(str::trim);
    match texts.next() {
        None | Some("") => Err(AnswerError::Empty),
        Some(first) if texts.all(|other| other == first) => Ok(first),
        Some(_) => Err(AnswerError::AmbiguousTexts),
    }
}

/// The position in the `<answer>` tag of `completion`. Several tags must agree.
///
/// # Errors
/// Why no unique answer can be extracted.
pub fn position(completion: &str) -> Result<[f64; 3], AnswerError> {
    read_position(text(completion)?)
}

/// The position that `text` is: `[0.25, 0, 0.752]`, `(0.25, 0, 0.752)`, `0.25 0 0.752`.
///
/// # Errors
/// [`AnswerError::Empty`] or [`AnswerError::NoPosition`].
pub fn read_position(text: &str) -> Result<[f64; 3], AnswerError> {
    match position::parse_position(text) {
        Some(position) => Ok(position),
        None if text.trim().is_empty() => Err(AnswerError::Empty),
        None => Err(AnswerError::NoPosition),
    }
}

fn present_tags(completion: &str) -> Result<Vec<&str>, AnswerError> {
    let tags = answer_tags(completion);
    if !tags.is_empty() {
        return Ok(tags);
    }
    Err(if completion.contains("<answer>") { AnswerError::Unclosed } else { AnswerError::NoTag })
}

fn single_letter(named: BTreeSet<char>, empty: bool) -> Result<char, AnswerError> {
    match (named.first(), named.len()) {
        (Some(&letter), 1) => Ok(letter),
        (Some(_), _) => Err(AnswerError::AmbiguousLetters(named)),
        (None, _) if empty => Err(AnswerError::Empty),
        (None, _) => Err(AnswerError::NoLetter),
    }
}

fn single_number(found: Vec<f64>, empty: bool) -> Result<f64, AnswerError> {
    match found.split_first() {
        Some((&first, rest)) if rest.iter().all(|&other| other == first) => Ok(first),
        Some(_) => Err(AnswerError::AmbiguousNumbers),
        None if empty => Err(AnswerError::Empty),
        None => Err(AnswerError::NoNumber),
    }
}

#[cfg(test)]
mod tests;
