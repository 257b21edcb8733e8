//! Regular expressions with the meaning that Python gives them.

use std::sync::LazyLock;

use fancy_regex::{Regex, RegexBuilder};

/// A compiled pattern; all of them are constants, so none fails.
pub(crate) type Pattern = LazyLock<Option<Regex>>;

/// Steps after which a text matches nothing: about a second, for texts of white space alone.
const MAX_STEPS: usize = 50_000_000;

/// Python's word characters, `\w`.
const WORD: &str = r"[\p{L}\p{N}_]";

/// Compiles `text`, in which `~` stands for any white space, `‹` for no word character before and `›` for none after. Python
/// has other white space and word characters than Unicode's rules for regular expressions.
pub(crate) fn pattern(text: &str) -> Option<Regex> {
    const SPACE: &str = r"[\s\x1c-\x1f]*";
    let text = text.replace('~', SPACE);
    let text = text.replace('‹', &format!("(?<!{WORD})")).replace('›', &format!("(?!{WORD})"));
    RegexBuilder::new(&text).backtrack_limit(MAX_STEPS).build().ok()
}

/// Whether Python's `\w` matches: letters, numbers and `_`, without marks and enclosed letters.
pub(crate) fn is_word(char: char) -> bool {
    static IS_WORD: Pattern = LazyLock::new(|| pattern(WORD));
    let matches = |word: &Regex| word.is_match(char.encode_utf8(&mut [0; 4])).unwrap_or(false);
    match char.is_ascii() {
        true => char.is_ascii_alphanumeric() || char == '_',
        false => IS_WORD.as_ref().is_some_and(matches),
    }
}

/// The first letter that the pattern captures first, in upper case.
pub(crate) fn letter(pattern: &Option<Regex>, text: &str) -> Option<char> {
    let found = pattern.as_ref()?.captures(text).ok()??;
    upper(found.get(1)?.as_str())
}

/// All letters that the pattern captures, in upper case.
pub(crate) fn letters<'a>(
    pattern: &'a Option<Regex>,
    text: &'a str,
) -> impl Iterator<Item = char> + 'a {
    let found = pattern.iter().flat_map(|pattern| pattern.captures_iter(text));
    found.filter_map(|found| upper(found.ok()?.get(1)?.as_str()))
}

/// The end of the last match.
pub(crate) fn last_end(pattern: &Option<Regex>, text: &str) -> Option<usize> {
    Some(pattern.as_ref()?.find_iter(text).filter_map(Result::ok).last()?.end())
}

fn upper(text: &str) -> Option<char> {
    text.chars().next()?.to_uppercase().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_and_word_characters_are_those_of_python() {
        let of = pattern("‹([A-D])›~;");
        assert_eq!(letter(&of, "A\u{1c}\u{a0};"), Some('A'));
        for text in ["éA;", "²A;", "_A;", "A½;"] {
            assert_eq!(letter(&of, text), None, "{text}");
        }
        // A combining mark is no word character.
        assert_eq!(letter(&of, "e\u{301}A;"), Some('A'));
    }

    #[test]
    fn letters_and_numbers_are_words_and_marks_and_symbols_are_not() {
        assert!("aZ9_éß中²½Ⅷ٣ªʰ".chars().all(is_word));
        assert!(!"-’ Ⓑ🄑\u{301}\u{345}\u{93e}\u{200d}".chars().any(is_word));
    }

    #[test]
    fn a_long_text_of_white_space_ends() {
        let text = format!("A{}x", "\n".repeat(60_000));
        assert_eq!(letter(&pattern("(?<!B)([A-F])~[*]*~;"), &text), None);
    }
}
