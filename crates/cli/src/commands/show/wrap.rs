//! Word wrap of text with terminal codes.

use unicode_width::UnicodeWidthStr as _;

const ESCAPE: char = '\u{1b}';
const RESET: &str = "\u{1b}[0m";
/// Narrower terminals get long lines as they are.
const MIN_WIDTH: usize = 20;

/// Breaks lines longer than `width` columns at spaces, and keeps their indentation. A style that spans lines is set
/// again on each, as pagers style every line on its own.
pub(super) fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = Wrapped { text: String::new(), column: 0, style: String::new() };
    for line in text.lines() {
        wrapped.push_line(line, width);
    }
    wrapped.text
}

struct Wrapped {
    text: String,
    column: usize,
    /// The style code in force at the end of the text; empty if there is none.
    style: String,
}

impl Wrapped {
    fn push_line(&mut self, line: &str, width: usize) {
        let indent = line.len() - line.trim_start_matches(' ').len();
        self.start_line(indent);
        let mut words = line[indent..].split(' ');
        if let Some(word) = words.next() {
            self.push_word(word);
        }
        for word in words {
            let columns = visible(word);
            let fits = self.column + 1 + columns <= width || width < MIN_WIDTH;
            if fits || self.column == indent {
                self.text.push(' ');
                self.column += 1;
            } else {
                self.end_line();
                self.start_line(indent);
            }
            self.push_word(word);
        }
        self.end_line();
    }

    fn start_line(&mut self, indent: usize) {
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.text.push_str(&self.style);
        self.column = indent;
    }

    fn end_line(&mut self) {
        if !self.style.is_empty() {
            self.text.push_str(RESET);
        }
        self.text.push('\n');
    }

    fn push_word(&mut self, word: &str) {
        self.text.push_str(word);
        self.column += visible(word);
        for code in word.split(ESCAPE).skip(1).filter_map(|rest| rest.split_once('m')) {
            let code = format!("{ESCAPE}{}m", code.0);
            self.style = if code == RESET { String::new() } else { code };
        }
    }
}

/// Columns of a word without its terminal codes.
fn visible(word: &str) -> usize {
    let mut pieces = word.split(ESCAPE);
    let first = pieces.next().unwrap_or_default().width();
    let rest = pieces.map(|piece| piece.split_once('m').map_or(0, |(_, text)| text.width()));
    first + rest.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_break_at_words_and_keep_their_indentation() {
        assert_eq!(
            wrap("  the lamp stands left of the sofa\nand so on\n", 22),
            "  the lamp stands left\n  of the sofa\nand so on\n"
        );
    }

    #[test]
    fn lines_that_fit_and_blank_lines_stay() {
        let text = "twenty-two characters!\n\n  a  b\n";
        assert_eq!(wrap(text, 22), text);
    }

    #[test]
    fn a_word_longer_than_the_terminal_is_not_broken() {
        let text = "a https://example.org/a/very/long/path b\n";
        assert_eq!(wrap(text, 20), "a\nhttps://example.org/a/very/long/path\nb\n");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(wrap("机器人在沙发左边 机器人\n", 20), "机器人在沙发左边\n机器人\n");
    }

    #[test]
    fn codes_take_no_columns_and_a_style_is_set_again_on_every_line() {
        let dim = "\u{1b}[2m";
        assert_eq!(
            wrap(&format!("  {dim}one two three four five six{RESET} seven\n"), 22),
            format!("  {dim}one two three four{RESET}\n  {dim}five six{RESET} seven\n")
        );
        assert_eq!(
            wrap(&format!("{dim}one\ntwo{RESET}\n"), 40),
            format!("{dim}one{RESET}\n{dim}two{RESET}\n")
        );
    }
}
