//! Standard output that a reader may leave early (`| head`).

use std::fmt::Arguments;
use std::io::{self, Write as _};

/// `print!` with a result: where it panics, this is an error, at which the command ends quietly.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::text(format_args!($($text)*)) };
}

/// `println!` as [`out`] has `print!`.
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

pub(crate) use {out, outln};

pub(crate) fn text(text: Arguments<'_>) -> io::Result<()> {
    io::stdout().write_fmt(text)
}

pub(crate) fn line(text: Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
