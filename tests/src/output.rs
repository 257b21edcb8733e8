use std::process::{Command, Output};
use std::str::from_utf8;

use assert_cmd::assert::OutputAssertExt as _;

/// Standard output of a finished command.
///
/// # Panics
/// It is not UTF-8.
pub fn stdout(output: &Output) -> &str {
    from_utf8(&output.stdout).expect("UTF-8 on standard output")
}

/// Standard error of a finished command.
///
/// # Panics
/// It is not UTF-8.
pub fn stderr(output: &Output) -> &str {
    from_utf8(&output.stderr).expect("UTF-8 on standard error")
}

/// Runs `command`, which must succeed, and returns its standard output.
///
/// # Panics
/// It fails, or its output is not UTF-8.
pub fn stdout_of(command: &mut Command) -> String {
    stdout(command.assert().code(0).get_output()).to_owned()
}

/// Runs `command`, which must exit with `code`, and returns its standard error.
///
/// # Panics
/// It exits with another code, or its standard error is not UTF-8.
pub fn stderr_of(command: &mut Command, code: i32) -> String {
    stderr(command.assert().code(code).get_output()).to_owned()
}
