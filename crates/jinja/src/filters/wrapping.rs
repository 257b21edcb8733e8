//! Wraps lines as Python's `textwrap` does.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::super::fault::{Result, TemplateFault};
use super::super::limits::Meter;
use super::super::text::offset;

/// How lines are wrapped.
pub(super) struct Wrapping {
    pub(super) width: usize,
    pub(super) break_long_words: bool,
    pub(super) break_on_hyphens: bool,
}

/// Runs of spaces.
static SPACES: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("[\t\n\x0b\x0c\r ]+").ok());

/// Runs of spaces, dashes between words, and words up to a space, a dash or a hyphen between letters.
static WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let space = "[\t\n\x0b\x0c\r ]";
    let other = "[^\t\n\x0b\x0c\r ]";
    let in_word = r#"[\w!"'&.,?]"#;
    let letter = r"[\p{L}\p{No}\p{Nl}\p{M}_]";
    let hyphen =
        format!("-(?:(?<={letter}{letter}-)|(?<={letter}-{in_word}-))(?={letter}-?{letter})");
    let dash = format!(r"(?<={in_word})(?=-{{2,}}\w)");
    let word = format!(r"{other}+?(?:{hyphen}|(?={space}|\z)|{dash})");
    Regex::new(&format!(r"{space}+|(?<={in_word})-{{2,}}(?=\w)|{word}")).ok()
});

/// The parts that a line is made of.
fn chunks<'t>(meter: &Meter, line: &'t str, wrapping: &Wrapping) -> Result<Vec<&'t str>> {
    let separators = if wrapping.break_on_hyphens { &WORDS } else { &SPACES };
    let failed = || TemplateFault::new("the text cannot be wrapped");
    let separators = separators.as_ref().ok_or_else(failed)?;
    let mut chunks = Vec::new();
    let mut end = 0;
    for found in separators.find_iter(line) {
        let found = found.map_err(|_| failed())?;
        meter.steps(1)?;
        chunks.extend([&line[end..found.start()], found.as_str()]);
        end = found.end();
    }
    chunks.push(&line[end..]);
    chunks.retain(|chunk| !chunk.is_empty());
    Ok(chunks)
}

/// The lines that a line becomes.
pub(super) fn wrapped(meter: &Meter, line: &str, wrapping: &Wrapping) -> Result<Vec<String>> {
    let mut chunks = chunks(meter, line, wrapping)?;
    chunks.reverse();
    let is_blank = |chunk: &str| chunk.trim_matches(super::super::text::is_space).is_empty();
    let mut lines = Vec::new();
    while let Some(first) = chunks.last() {
        meter.steps(1)?;
        if is_blank(first) && !lines.is_empty() {
            chunks.pop();
        }
        let (mut parts, mut length) = (Vec::new(), 0);
        while let Some(chunk) = chunks.last() {
            let chunk_length = chunk.chars().count();
            if length + chunk_length > wrapping.width {
                break;
            }
            parts.push(*chunk);
            length += chunk_length;
            chunks.pop();
        }
        if let Some(chunk) = chunks.last().copied()
            && chunk.chars().count() > wrapping.width
        {
            chunks.pop();
            let (part, rest) =
                long_word(chunk, wrapping.width - length, parts.is_empty(), wrapping);
            parts.push(part);
            if !rest.is_empty() || part.is_empty() {
                chunks.push(rest);
            }
        }
        parts.retain(|part| !part.is_empty());
        if parts.last().is_some_and(|last| is_blank(last)) {
            parts.pop();
        }
        if !parts.is_empty() {
            lines.push(parts.concat());
        }
    }
    Ok(lines)
}

/// What of a word that is longer than a line is in this line, and the rest.
fn long_word<'t>(
    word: &'t str,
    space: usize,
    is_first: bool,
    wrapping: &Wrapping,
) -> (&'t str, &'t str) {
    if !wrapping.break_long_words {
        return if is_first { (word, "") } else { ("", word) };
    }
    let mut end = offset(word, space);
    if wrapping.break_on_hyphens
        && let Some(hyphen) = word[..end].rfind('-')
        && word[..hyphen].contains(|c| c != '-')
    {
        end = hyphen + 1;
    }
    word.split_at(end)
}
