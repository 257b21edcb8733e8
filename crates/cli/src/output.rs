//! Standard output whose reader may close it early (`| head`).

use std::fmt::Arguments;
use std::io::{self, Write as _};

/// `print!` that returns an error instead of panicking; the command then ends quietly.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::text(format_args!($($text)*)) };
}

/// `println!` that returns an error, as [`out`] does.
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
