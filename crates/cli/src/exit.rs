//! Exit codes: 0 done, 1 the run failed, 2 wrong usage or configuration.

use std::process::ExitCode;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// All of the work is done.
    Done,
    /// The command ran, but some of its work failed; what failed has been said.
    Partial,
    /// A process that the command has started found its arguments wrong, and has said so.
    Wrong,
}

/// A fault of usage or configuration: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Advice for the user, added to an error by [`anyhow::Error::context`]'s place in the chain.
#[derive(Debug)]
pub(crate) struct Hint {
    message: String,
    hint: String,
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hint {}

/// An error with a `hint:` line.
pub(crate) fn hint(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hint { message: message.into(), hint: hint.into() }.into()
}

/// The error and its causes, less those that a message before them has told already.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        match (told.is_empty(), told.contains(&cause)) {
            (true, _) => cause,
            (false, true) => told,
            (false, false) => format!("{told}: {cause}"),
        }
    })
}

/// Whether whoever read the output (`| head`) has had enough. Pipes to FFmpeg have errors of their
/// own.
fn reader_left(error: &anyhow::Error) -> bool {
    let outermost = error.chain().next().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    outermost.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints an error, if there is one, and gives the process its exit code.
pub(crate) fn code(result: anyhow::Result<Status>) -> ExitCode {
    let error = match result {
        Ok(Status::Done) => return ExitCode::SUCCESS,
        Ok(Status::Partial) => return ExitCode::from(1),
        Ok(Status::Wrong) => return ExitCode::from(2),
        Err(error) if reader_left(&error) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    eprintln!("error: {}", told(&error));
    if let Some(hint) = error.chain().find_map(|cause| cause.downcast_ref::<Hint>()) {
        eprintln!("hint: {}", hint.hint);
    }
    let usage = error.chain().any(|cause| cause.is::<Usage>());
    ExitCode::from(if usage { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_the_message_holds_is_told_once() {
        let inner = std::io::Error::other("no such file");
        let error = anyhow::Error::new(inner).context("cannot read `a`: no such file");
        assert_eq!(told(&error), "cannot read `a`: no such file");
        assert_eq!(told(&error.context("question 3")), "question 3: cannot read `a`: no such file");
    }

    #[test]
    fn a_reader_that_leaves_is_no_fault_but_a_pipe_that_breaks_is() {
        let broken = || anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(reader_left(&broken()));
        assert!(!reader_left(&broken().context("cannot write to `ffmpeg`")));
        assert!(!reader_left(&std::io::Error::other("disk full").into()));
    }
}
