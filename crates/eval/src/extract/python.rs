//! Texts as Python reads them.

use embodied_r_rewards::answer::decimal_digit;

/// Whether Python's `str.isspace` holds.
pub(crate) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
}

/// `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.splitlines()`.
pub(crate) fn lines(text: &str) -> Vec<&str> {
    let (mut lines, mut start) = (Vec::new(), 0);
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        let is_end =
            matches!(char, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}')
                || matches!(char, '\u{2028}' | '\u{2029}');
        if !is_end {
            continue;
        }
        lines.push(&text[start..at]);
        let mut end = at + char.len_utf8();
        if char == '\r' && chars.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        start = end;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// The last `count` characters.
pub(crate) fn tail(text: &str, count: usize) -> &str {
    let start = count.checked_sub(1).and_then(|last| text.char_indices().nth_back(last));
    start.map_or(text, |(at, _)| &text[at..])
}

/// `float(text)`: digits of any script, `_` between digits, and no minus sign but `-`.
pub(crate) fn float(text: &str) -> Option<f64> {
    let text: String =
        text.trim().chars().map(|char| decimal_digit(char).unwrap_or(char)).collect();
    let bytes = text.as_bytes();
    let is_digit =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let between_digits =
        |(at, _): (usize, &str)| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
    if !text.match_indices('_').all(between_digits) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_python_ends_them() {
        let text = "a\nb\r\nc\rd\u{b}e\u{1c}f\u{85}g\u{2028}h\u{1f}i\n\nj\n";
        let expected = ["a", "b", "c", "d", "e", "f", "g", "h\u{1f}i", "", "j"];
        assert_eq!(lines(text), expected);
        assert!(lines("").is_empty());
    }

    #[test]
    fn separators_are_white_space() {
        assert_eq!(strip("\u{1c}\u{a0} a b\u{1f}\u{3000}\n"), "a b");
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
    }

    #[test]
    fn the_tail_counts_characters() {
        assert_eq!((tail("aébc", 3), tail("ab", 3), tail("ab", 0)), ("ébc", "ab", "ab"));
    }
}
