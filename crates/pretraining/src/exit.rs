//! Exit codes: 0 for success, 1 for failure, 2 for wrong usage.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// Wrong usage: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints the error, if any, and returns the exit code of the process.
pub(crate) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // There is nowhere to report that standard error is closed.
    let _ = writeln!(io::stderr(), "error: {}", message(&error));
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

/// The error and its causes, without causes that an earlier message contains.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |message, cause| {
        match (message.is_empty(), message.contains(&cause)) {
            (true, _) => cause,
            (false, true) => message,
            (false, false) => format!("{message}: {cause}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_the_message_contains_is_printed_once() {
        let inner = io::Error::other("no such file");
        let error = anyhow::Error::new(inner).context("cannot read `a`: no such file");
        assert_eq!(message(&error), "cannot read `a`: no such file");
        assert_eq!(message(&error.context("run 3")), "run 3: cannot read `a`: no such file");
    }
}
