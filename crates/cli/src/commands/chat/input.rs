//! The source of messages: a line editor on a terminal, lines of standard input elsewhere.

use std::io::{BufRead, IsTerminal as _, Read as _};

use anyhow::Context;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor};

/// The prompt of a message, and of its continuation lines.
const PROMPTS: [&str; 2] = ["> ", ". "];

/// Largest line of standard input.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// A source of messages.
pub(super) enum Input {
    Terminal(Box<Editor<(), MemHistory>>),
    Lines(std::io::StdinLock<'static>),
}

/// One read of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputEvent {
    Message(String),
    /// A blank line, or Ctrl-C.
    Empty,
    /// End of file.
    End,
}

impl Input {
    pub(super) fn open() -> anyhow::Result<Self> {
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return Ok(Self::Lines(std::io::stdin().lock()));
        }
        let config = Config::builder().auto_add_history(true).build();
        let history = MemHistory::with_config(&config);
        let editor =
            Editor::with_history(config, history).context("cannot read from the terminal")?;
        eprintln!("type `/help` for commands, Ctrl-D to quit");
        Ok(Self::Terminal(Box::new(editor)))
    }

    /// The next message; a line that ends with `\` continues on the next.
    pub(super) fn message(&mut self) -> anyhow::Result<InputEvent> {
        match self {
            Self::Terminal(editor) => joined(|prompt| match editor.readline(prompt) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(error).context("cannot read from the terminal"),
            }),
            Self::Lines(stdin) => joined(|_| read(stdin)),
        }
    }
}

enum Line {
    Text(String),
    Interrupted,
    End,
}

fn read(lines: &mut impl BufRead) -> anyhow::Result<Line> {
    let mut line = Vec::new();
    let mut lines = lines.take(MAX_LINE_BYTES + 1);
    if lines.read_until(b'\n', &mut line).context("cannot read standard input")? == 0 {
        return Ok(Line::End);
    }
    anyhow::ensure!(
        line.len() as u64 <= MAX_LINE_BYTES,
        "a line of standard input is longer than {} MiB",
        MAX_LINE_BYTES >> 20
    );
    let text = String::from_utf8_lossy(&line);
    Ok(Line::Text(text.trim_end_matches(['\n', '\r']).to_owned()))
}

fn joined(mut next: impl FnMut(&str) -> anyhow::Result<Line>) -> anyhow::Result<InputEvent> {
    let mut text = String::new();
    let [mut prompt, further] = PROMPTS;
    loop {
        match next(prompt)? {
            Line::Text(line) => match line.strip_suffix('\\') {
                Some(continued) => {
                    text.push_str(continued);
                    text.push('\n');
                }
                None => {
                    text.push_str(&line);
                    break;
                }
            },
            Line::Interrupted => return Ok(InputEvent::Empty),
            Line::End if text.is_empty() => return Ok(InputEvent::End),
            Line::End => break,
        }
        prompt = further;
    }
    Ok(if text.trim().is_empty() { InputEvent::Empty } else { InputEvent::Message(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(mut text: &[u8]) -> Vec<InputEvent> {
        let mut events = Vec::new();
        loop {
            match joined(|_| read(&mut text)).unwrap() {
                InputEvent::End => return events,
                next => events.push(next),
            }
        }
    }

    #[test]
    fn a_line_that_ends_with_a_backslash_continues_on_the_next() {
        let message = |text: &str| InputEvent::Message(text.into());
        assert_eq!(messages(b"a\\\r\nb\nc"), [message("a\nb"), message("c")]);
        assert_eq!(messages(b"the end\\\n"), [message("the end\n")]);
    }

    #[test]
    fn a_blank_line_is_no_message() {
        assert_eq!(messages(b"\n  \n"), [InputEvent::Empty, InputEvent::Empty]);
    }
}
