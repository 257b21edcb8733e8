//! Why a template cannot be parsed or rendered.

use std::fmt;

/// Why a chat template cannot be read, parsed or rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    message: String,
    /// The line of the template, from 1.
    line: Option<usize>,
}

pub(super) type Result<T, E = TemplateFault> = std::result::Result<T, E>;

impl TemplateFault {
    /// A fault with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: None }
    }

    /// Adds the line, unless an inner expression has added its own.
    pub(super) fn at(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{} (line {line} of the template)", self.message),
            None => out.write_str(&self.message),
        }
    }
}

impl std::error::Error for TemplateFault {}

/// An error with this message.
pub(super) fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(TemplateFault::new(message))
}
