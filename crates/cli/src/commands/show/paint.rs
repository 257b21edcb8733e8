//! Terminal colors.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_has_no_codes() {
        assert_eq!(Paint::Plain.bold("x"), "x");
        assert_eq!(Paint::Colors.bold("x"), "\u{1b}[1mx\u{1b}[0m");
        assert_eq!(Paint::Colors.bold(""), "");
    }
}
