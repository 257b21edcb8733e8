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

/// Advice about what a GPU's driver says, whatever was asked of it, and on whichever rank.
fn of_driver(told: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|words| told.contains(words));
    if says(&["CUDA_ERROR_OUT_OF_MEMORY", "CUDA error 2,", "CUBLAS_STATUS_ALLOC_FAILED"]) {
        return Some(
            "the GPU's memory is full: lower `max_tokens_per_batch` and `--kv-cache-gb` where a command has them, or \
             share the work out over more GPUs; `embodied-r plan` and `--dry-run` tell what a run takes",
        );
    }
    let none = ["CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_INVALID_DEVICE", "CUDA_ERROR_NOT_INITIALIZED"];
    says(&none).then_some("`embodied-r doctor` tells which GPUs this program can use")
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
    let told = told(&error);
    eprintln!("error: {told}");
    let hint = error.chain().find_map(|cause| cause.downcast_ref::<Hint>());
    if let Some(hint) = hint.map(|hint| hint.hint.as_str()).or_else(|| of_driver(&told)) {
        eprintln!("hint: {hint}");
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
    fn what_a_driver_says_is_explained() {
        let full = "rank 3 on `b` failed: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        assert!(of_driver(full).unwrap().contains("max_tokens_per_batch"));
        assert!(of_driver("`rms_norm` on the device: CUDA error 2, out of memory").is_some());
        let none = of_driver("DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device\")");
        assert!(none.unwrap().contains("doctor"));
        assert_eq!(of_driver("`rms_norm` on the device: CUDA error 209, no kernel image"), None);
    }

    #[test]
    fn a_reader_that_leaves_is_no_fault_but_a_pipe_that_breaks_is() {
        let broken = || anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(reader_left(&broken()));
        assert!(!reader_left(&broken().context("cannot write to `ffmpeg`")));
        assert!(!reader_left(&std::io::Error::other("disk full").into()));
    }
}
