//! The ranks' output: each line after its rank, in color at a terminal.

use std::io::{self, IsTerminal, Write};

use embodied_r_launch::LineSink;

use crate::terminal::escaped;

/// How the prefix is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrefixStyle {
    Plain,
    Colored,
    /// No prefix, for output that programs read.
    Bare,
}

impl PrefixStyle {
    /// Colored at a terminal, unless `NO_COLOR` is set.
    fn of(stream: &impl IsTerminal) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && stream.is_terminal() { Self::Colored } else { Self::Plain }
    }

    /// The prefix of `rank`, in one of six colors.
    fn prefix(self, rank: &str) -> String {
        let color = 31 + rank.bytes().fold(0, |sum, byte| (10 * sum + u32::from(byte)) % 6);
        match self {
            Self::Bare => String::new(),
            Self::Plain => format!("[{rank}] "),
            Self::Colored => format!("\u{1b}[{color}m[{rank}]\u{1b}[0m "),
        }
    }
}

/// A rank's standard output; without a prefix if a program reads it.
pub(super) fn stdout() -> Box<dyn LineSink> {
    let style = match std::env::args_os().any(|word| word == "--json") {
        true => PrefixStyle::Bare,
        false => PrefixStyle::of(&io::stdout()),
    };
    Box::new(Lines { to: io::stdout(), style })
}

/// A rank's standard error.
pub(super) fn stderr() -> Box<dyn LineSink> {
    Box::new(Lines { to: io::stderr(), style: PrefixStyle::of(&io::stderr()) })
}

struct Lines<W> {
    to: W,
    style: PrefixStyle,
}

impl<W: Write + Send> LineSink for Lines<W> {
    /// Writes a line in one piece.
    fn line(&mut self, rank: Option<&str>, text: &[u8]) -> io::Result<()> {
        let prefix = rank.map(|rank| self.style.prefix(rank)).unwrap_or_default();
        let line = match self.style {
            PrefixStyle::Bare => text.to_owned(),
            // A rank's own words are escaped, but not those of the libraries that it uses.
            _ => format!("{prefix}{}", escaped(&String::from_utf8_lossy(text))).into_bytes(),
        };
        self.to.write_all(&line)?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, rank: &str, style: PrefixStyle) -> String {
        let mut lines = Lines { to: Vec::new(), style };
        lines.line(Some(rank), text.as_bytes()).unwrap();
        String::from_utf8(lines.to).unwrap()
    }

    #[test]
    fn a_line_is_prefixed_with_its_rank() {
        assert_eq!(shown("a: b\n", "7", PrefixStyle::Plain), "[7] a: b\n");
        assert_eq!(shown("{}\n", "0", PrefixStyle::Bare), "{}\n");
    }

    #[test]
    fn control_characters_are_escaped_except_in_output_for_programs() {
        let text = "\u{1b}[2J\u{7}\n";
        assert_eq!(shown(text, "7", PrefixStyle::Plain), "[7] \\u001b[2J\\u0007\n");
        assert_eq!(shown(text, "7", PrefixStyle::Bare), text);
    }

    #[test]
    fn adjacent_ranks_have_different_colors() {
        let [first, second] = ["0", "1"].map(|rank| shown("a\n", rank, PrefixStyle::Colored));
        assert_eq!(first, "\u{1b}[31m[0]\u{1b}[0m a\n");
        assert_eq!(second, "\u{1b}[32m[1]\u{1b}[0m a\n");
    }
}
