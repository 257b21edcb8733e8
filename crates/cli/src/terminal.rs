//! Properties of the terminal.

use std::io::IsTerminal;

/// Whether text to `stream` is colored: it is a terminal, and `NO_COLOR` is not set (<https://no-color.org>).
pub(crate) fn has_colors(stream: &impl IsTerminal) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !no_color
}

/// Columns of the terminal on standard output; `None` if it is none.
pub(crate) fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
