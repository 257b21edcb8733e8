//! Why an external reward failed.

/// Why an external reward failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExternalError {
    /// The program does not exist.
    #[error("program `{program}` not found; check the reward's `command`")]
    NoProgram {
        /// The first word of the command.
        program: String,
    },
    /// The command cannot be started.
    #[error("cannot start `{command}`: {reason}")]
    Start {
        /// The command.
        command: String,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// Reading the command's output or waiting for its exit failed.
    #[error("cannot read from `{command}`: {reason}")]
    Io {
        /// The command.
        command: String,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// The command exited with a failure.
    #[error("`{command}` failed with {status}{}", stderr_suffix(last_line))]
    Exit {
        /// The command.
        command: String,
        /// Its exit status or the signal that terminated it.
        status: String,
        /// The last line of its standard error; empty for none.
        last_line: String,
    },
    /// The command timed out and was killed.
    #[error(
        "`{command}` timed out after {timeout_s} s and was killed{}; raise `timeout_s` or lower \
         `batch_size`",
        stderr_suffix(last_line)
    )]
    Timeout {
        /// The command.
        command: String,
        /// Its timeout.
        timeout_s: f64,
        /// The last line of its standard error; empty for none.
        last_line: String,
    },
    /// The service is unreachable or rejects the request.
    #[error(transparent)]
    Http(#[from] embodied_r_openai::Error),
    /// The async runtime cannot start.
    #[error("cannot start the async runtime: {0}")]
    Runtime(std::io::Error),
    /// The response has the wrong format.
    #[error(
        "`{from}` returned an invalid response, expected {{\"rewards\": [number or null, …]}}: {reason}"
    )]
    Reply {
        /// The command or the URL.
        from: String,
        /// What is wrong.
        reason: String,
    },
    /// A stop was requested while the reply was waited for.
    #[error("interrupted")]
    Interrupted,
    /// The reply has the wrong number of scores.
    #[error("`{from}` returned {got} rewards for {expected} completions")]
    Count {
        /// The command or the URL.
        from: String,
        /// Number of completions.
        expected: usize,
        /// Number of scores.
        got: usize,
    },
}

fn stderr_suffix(last_line: &str) -> String {
    if last_line.is_empty() { String::new() } else { format!(", stderr: {last_line}") }
}
