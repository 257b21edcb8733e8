//! Terminal colors, and sanitized text.

use crate::args::show::Color;
use crate::terminal;

/// Whether text is colored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Colors,
    Plain,
}

/// A text style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Bold,
    Dim,
    Tag,
    Good,
    Bad,
}

impl Style {
    /// SGR parameters of ECMA-48.
    fn codes(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Tag => "36",
            Self::Good => "1;32",
            Self::Bad => "1;31",
        }
    }
}

impl Paint {
    /// From the user's choice, `NO_COLOR`, and whether standard output is a terminal.
    pub(super) fn new(color: Color) -> Self {
        let colors = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal::has_colors(&std::io::stdout()),
        };
        if colors { Self::Colors } else { Self::Plain }
    }

    /// `text` in `style`.
    pub(super) fn styled(self, style: Style, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colors if text.is_empty() => String::new(),
            Self::Colors => format!("\u{1b}[{}m{text}\u{1b}[0m", style.codes()),
        }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.styled(Style::Bold, text)
    }
}

/// Replaces control characters, which a model could use to manipulate the terminal.
pub(super) fn sanitized(text: &str) -> String {
    let safe = |character: char| match character {
        '\n' | '\t' => character,
        other if other.is_control() => '\u{fffd}',
        other => other,
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_control_characters_do_not_reach_the_terminal() {
        assert_eq!(sanitized("a\u{1b}[2Jb\rc\u{9b}d\n\te"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\n\te");
    }

    #[test]
    fn plain_text_has_no_codes() {
        assert_eq!(Paint::Plain.bold("x"), "x");
        assert_eq!(Paint::Colors.bold("x"), "\u{1b}[1mx\u{1b}[0m");
        assert_eq!(Paint::Colors.bold(""), "");
    }
}
