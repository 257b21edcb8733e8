//! All text that the commands print, with control characters [`escaped`], also those of models and servers.
//!
//! Colors and progress bars are added around text that is escaped already. Files keep their characters.

use std::fmt::Arguments;
use std::io::{self, Write as _};

use crate::terminal::escaped;

/// `print!` that returns an error instead of panicking if the reader closed the pipe (`| head`); the command then ends
/// quietly.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::text(format_args!($($text)*)) };
}

/// `println!` that returns an error, as [`out`] does.
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

pub(crate) use {out, outln};

pub(crate) fn text(text: Arguments<'_>) -> io::Result<()> {
    io::stdout().write_all(escaped(&text.to_string()).as_bytes())
}

pub(crate) fn line(text: Arguments<'_>) -> io::Result<()> {
    io::stdout().write_all(format!("{}\n", escaped(&text.to_string())).as_bytes())
}

/// Writes a line to standard error. There is nowhere to report that it is closed.
pub(crate) fn message(text: Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{}\n", escaped(&text.to_string())).as_bytes());
}
