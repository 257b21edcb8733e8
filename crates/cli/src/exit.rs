//! Exit codes: 0 for success, 1 for failure, 2 for a usage or configuration error, 3 for a claim that fails.

use std::process::ExitCode;

/// The outcome of a command that returned no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Everything succeeded.
    Done,
    /// Some of the work failed, and the failures are reported already.
    Partial,
    /// A rank launched by the command ended with a usage error, which it has printed.
    UsageError,
    /// `quickstart --strict`: a claim fails, and is printed already.
    ClaimFailed,
}

/// A usage or configuration error: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error message with advice for the user, which is printed as a `hint:` line.
#[derive(Debug)]
pub(crate) struct Hint {
    message: String,
    hint: String,
    /// Whether it is a usage error.
    is_usage: bool,
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hint {}

/// An error with a `hint:` line.
pub(crate) fn hint(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hint { message: message.into(), hint: hint.into(), is_usage: false }.into()
}

/// A usage error with a `hint:` line.
pub(crate) fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hint { message: message.into(), hint: hint.into(), is_usage: true }.into()
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

/// Advice for an error of the CUDA driver, on any rank.
fn cuda_hint(message: &str) -> Option<&'static str> {
    let has = |codes: &[&str]| codes.iter().any(|code| message.contains(code));
    if has(&["CUDA_ERROR_OUT_OF_MEMORY", "CUDA error 2,", "CUBLAS_STATUS_ALLOC_FAILED"]) {
        return Some(
            "out of GPU memory: lower `max_tokens_per_batch` or `--kv-cache-gb`, or use more GPUs; `embodied-r plan` \
             and `--dry-run` estimate the memory of a run",
        );
    }
    let no_gpu =
        ["CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_INVALID_DEVICE", "CUDA_ERROR_NOT_INITIALIZED"];
    has(&no_gpu).then_some("`embodied-r doctor` lists the usable GPUs")
}

/// Whether the reader of standard output has closed it (`| head`). Broken pipes to FFmpeg have another error type.
fn is_closed_stdout(error: &anyhow::Error) -> bool {
    let outermost = error.chain().next().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    outermost.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints an error, each of its causes once, and its hint.
pub(crate) fn print(error: &anyhow::Error) {
    let message = message(error);
    eprintln!("error: {message}");
    let hint = error.chain().find_map(|cause| cause.downcast_ref::<Hint>());
    if let Some(hint) = hint.map(|hint| hint.hint.as_str()).or_else(|| cuda_hint(&message)) {
        eprintln!("hint: {hint}");
    }
}

/// Prints the error, if any, and returns the exit code of the process.
pub(crate) fn code(result: anyhow::Result<Status>) -> ExitCode {
    let error = match result {
        Ok(Status::Done) => return ExitCode::SUCCESS,
        Ok(Status::Partial) => return ExitCode::from(1),
        Ok(Status::UsageError) => return ExitCode::from(2),
        Ok(Status::ClaimFailed) => return ExitCode::from(3),
        Err(error) if is_closed_stdout(&error) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    print(&error);
    let is_usage = |hint: &Hint| hint.is_usage;
    let usage = error
        .chain()
        .any(|cause| cause.is::<Usage>() || cause.downcast_ref::<Hint>().is_some_and(is_usage));
    ExitCode::from(if usage { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_the_message_contains_is_printed_once() {
        let inner = std::io::Error::other("no such file");
        let error = anyhow::Error::new(inner).context("cannot read `a`: no such file");
        assert_eq!(message(&error), "cannot read `a`: no such file");
        let error = error.context("question 3");
        assert_eq!(message(&error), "question 3: cannot read `a`: no such file");
    }

    #[test]
    fn a_claim_that_fails_has_an_exit_code_of_its_own() {
        let codes = [(Status::Done, 0), (Status::Partial, 1), (Status::UsageError, 2)];
        for (status, expected) in codes.into_iter().chain([(Status::ClaimFailed, 3)]) {
            assert_eq!(code(Ok(status)), ExitCode::from(expected), "{status:?}");
        }
    }

    #[test]
    fn errors_of_the_cuda_driver_get_a_hint() {
        let full = "rank 3 on `b` failed: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        assert!(cuda_hint(full).unwrap().contains("max_tokens_per_batch"));
        assert!(cuda_hint("`rms_norm` on the device: CUDA error 2, out of memory").is_some());
        let none = cuda_hint("DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device\")");
        assert!(none.unwrap().contains("doctor"));
        assert_eq!(cuda_hint("`rms_norm` on the device: CUDA error 209, no kernel image"), None);
    }

    #[test]
    fn a_closed_stdout_is_no_error_but_another_broken_pipe_is() {
        let broken = || anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(is_closed_stdout(&broken()));
        assert!(!is_closed_stdout(&broken().context("cannot write to `ffmpeg`")));
        assert!(!is_closed_stdout(&std::io::Error::other("disk full").into()));
    }
}
