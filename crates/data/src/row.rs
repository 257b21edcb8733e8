//! The common interface of the rows of the benchmarks' annotation files.

use std::path::Path;

use crate::error::{Error, Result};
use crate::question::Question;

/// A row of a benchmark's annotation file.
pub(crate) trait Row {
    /// Its category.
    fn category(&self) -> &str;

    /// The video's source dataset, if the benchmark has several.
    fn source(&self) -> Option<&str>;

    /// The question in the common format, without the path of its video. `path` and `row` locate
    /// the row in errors.
    fn question(&self, path: &Path, row: usize) -> Result<Question>;
}

/// Whether `name` is a plain file name, without path traversal.
pub(crate) fn file_name(name: &str) -> bool {
    let stem = name.strip_suffix(".mp4").unwrap_or(name);
    !stem.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '\\', '\0'])
}

/// The index of an option by its upper-case letter, of any width.
pub(crate) fn option_letter(answer: &str) -> Option<usize> {
    let mut chars = answer.chars();
    letter_index(chars.next()?).filter(|_| chars.next().is_none())
}

/// The index of the option whose label `text` begins with, such as `B. left` or `Ｂ．左`.
pub(crate) fn labelled_option(text: &str) -> Option<usize> {
    let mut chars = text.chars();
    let letter = letter_index(chars.next()?)?;
    matches!(chars.next()?, '.' | '．' | '、' | ')' | '）' | ':' | '：').then_some(letter)
}

/// The place of an upper-case letter in the alphabet, of any width.
fn letter_index(letter: char) -> Option<usize> {
    let first = match letter {
        'A'..='Z' => 'A',
        'Ａ'..='Ｚ' => 'Ａ',
        _ => return None,
    };
    Some(letter as usize - first as usize)
}

/// Makes the error about a value of row `row` of `path`, from its column, the value and what it should be.
pub(crate) fn invalid_value(
    path: &Path,
    row: usize,
) -> impl Fn(&'static str, &str, &'static str) -> Error {
    move |column, found, expected| {
        let (path, found) = (path.into(), found.to_owned());
        Error::Value { path, column, row, found, expected }
    }
}
