//! What a completion answers: its tags, its option letter, its number.
//!
//! Only the `<answer>` tag speaks. Reasoning names many letters on its way, so a reader of the whole
//! output rewards answers that were never given.
//!
//! An option letter is one of A to H. Within the tag it is read so:
//!
//! 1. Markup is dropped: `$`, `*`, backticks, braces and LaTeX commands, so `$\boxed{B}$` is `B`.
//! 2. A letter that stands alone counts in either case: `b`, `(b)`, `Option b.`, `The answer is B`.
//! 3. A leading label, an upper-case letter with `.`, `)`, `]` or `:` after it, begins the option's
//!    own text: `B. A tree`, `(B) I turn left`. In that text a letter counts only where it names
//!    an option again: `(C)`, `C. …`, `option C`, `or C`.
//! 4. Elsewhere every upper-case letter that is a word of its own counts, but for the article `A`.
//!
//! One letter, however often, is the answer; several different ones are none.

mod letters;
mod numbers;

use std::collections::BTreeSet;

/// The four tags of a well-formed completion, in order.
pub const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];

/// Why no single answer can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// There is no `<answer>` tag.
    #[error("there is no `<answer>` tag")]
    NoTag,
    /// The `<answer>` tag is opened and not closed; often the output was cut.
    #[error("the `<answer>` tag is not closed")]
    Unclosed,
    /// The tag holds white space alone.
    #[error("the `<answer>` tag is empty")]
    Empty,
    /// The text names no option.
    #[error("the answer names no option letter")]
    NoLetter,
    /// The text names more than one option.
    #[error("the answer names several options: {}", join(.0))]
    Letters(BTreeSet<char>),
    /// The text holds no number.
    #[error("the answer holds no number")]
    NoNumber,
    /// The text holds several different numbers.
    #[error("the answer holds several numbers")]
    Numbers,
}

fn join(letters: &BTreeSet<char>) -> String {
    letters.iter().map(char::to_string).collect::<Vec<_>>().join(", ")
}

/// The text in the `<answer>` tag, as it is; the last one where there are several.
///
/// Tags inside the reasoning are passed over, unless there are none after it.
pub fn answer_tag(completion: &str) -> Option<&str> {
    answer_tags(completion).pop()
}

/// The texts in all `<answer>` tags after the reasoning, or in the whole where none follow it.
pub fn answer_tags(completion: &str) -> Vec<&str> {
    let after = completion.rsplit_once("</think>").map_or(completion, |(_, after)| after);
    let tags = tags(after);
    if tags.is_empty() { self::tags(completion) } else { tags }
}

/// Texts between each `</answer>` and the nearest `<answer>` before it.
fn tags(text: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = text.split("</answer>").collect();
    parts.pop();
    parts.into_iter().filter_map(|part| Some(part.rsplit_once("<answer>")?.1)).collect()
}

/// The text in the first `<think>` tag, as it is; `None` where it is absent or not closed.
pub fn think_tag(completion: &str) -> Option<&str> {
    let (_, rest) = completion.split_once("<think>")?;
    Some(rest.split_once("</think>")?.0)
}

/// The option letter that `text` names, upper case; `None` for no letter or several different ones.
pub fn option_letter(text: &str) -> Option<char> {
    read_letter(text).ok()
}

/// The option letter that `text` names, upper case.
///
/// # Errors
/// [`Unreadable::Empty`], [`Unreadable::NoLetter`] or [`Unreadable::Letters`].
pub fn read_letter(text: &str) -> Result<char, Unreadable> {
    single_letter(letters::named(text), text.trim().is_empty())
}

/// The option letter in the `<answer>` tag of `completion`. Several tags must agree.
///
/// # Errors
/// Why there is none.
pub fn letter(completion: &str) -> Result<char, Unreadable> {
    let tags = present_tags(completion)?;
    let named = tags.iter().flat_map(|tag| letters::named(tag)).collect();
    single_letter(named, tags.iter().all(|tag| tag.trim().is_empty()))
}

/// The number that `text` holds, with or without a unit: `3.5`, `about 1,200 cm`.
///
/// # Errors
/// [`Unreadable::Empty`], [`Unreadable::NoNumber`] or [`Unreadable::Numbers`].
pub fn read_number(text: &str) -> Result<f64, Unreadable> {
    single_number(numbers::held(text), text.trim().is_empty())
}

/// The number in the `<answer>` tag of `completion`. Several tags must agree.
///
/// # Errors
/// Why there is none.
pub fn number(completion: &str) -> Result<f64, Unreadable> {
    let tags = present_tags(completion)?;
    let held = tags.iter().flat_map(|tag| numbers::held(tag)).collect();
    single_number(held, tags.iter().all(|tag| tag.trim().is_empty()))
}

fn present_tags(completion: &str) -> Result<Vec<&str>, Unreadable> {
    let tags = answer_tags(completion);
    if !tags.is_empty() {
        return Ok(tags);
    }
    Err(if completion.contains("<answer>") { Unreadable::Unclosed } else { Unreadable::NoTag })
}

fn single_letter(named: BTreeSet<char>, empty: bool) -> Result<char, Unreadable> {
    match (named.first(), named.len()) {
        (Some(&letter), 1) => Ok(letter),
        (Some(_), _) => Err(Unreadable::Letters(named)),
        (None, _) if empty => Err(Unreadable::Empty),
        (None, _) => Err(Unreadable::NoLetter),
    }
}

fn single_number(held: Vec<f64>, empty: bool) -> Result<f64, Unreadable> {
    match held.split_first() {
        Some((&first, rest)) if rest.iter().all(|&other| other == first) => Ok(first),
        Some(_) => Err(Unreadable::Numbers),
        None if empty => Err(Unreadable::Empty),
        None => Err(Unreadable::NoNumber),
    }
}

#[cfg(test)]
mod tests;
