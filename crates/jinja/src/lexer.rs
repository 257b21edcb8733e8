//! Splits a template into tokens, with the whitespace control of `trim_blocks` and `lstrip_blocks`.

use std::sync::Arc;

use super::ast::Literal;
use super::fault::{Result, TemplateFault, fail};
use super::literals::{number, unescaped};
use super::text::is_space;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Template text.
    Text(String),
    BlockStart,
    BlockEnd,
    OutputStart,
    OutputEnd,
    Name(Arc<str>),
    String(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

impl Token {
    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self, Self::Name(found) if **found == *name)
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self, Self::Operator(found) if *found == operator)
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => out.write_str("template text"),
            Self::BlockStart => out.write_str("`{%`"),
            Self::BlockEnd => out.write_str("`%}`"),
            Self::OutputStart => out.write_str("`{{`"),
            Self::OutputEnd => out.write_str("`}}`"),
            Self::Name(name) => write!(out, "`{name}`"),
            Self::String(_) => out.write_str("a string"),
            Self::Int(value) => write!(out, "`{value}`"),
            Self::Float(value) => write!(out, "`{value}`"),
            Self::Operator(operator) => write!(out, "`{operator}`"),
            Self::End => out.write_str("the end of the template"),
        }
    }
}

/// Longer operators come first.
const OPERATORS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",",
];

/// The tokens of a template with their lines, and [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<(usize, Token)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { rest: source, line: 1, starts_line: true, tokens: Vec::new() };
    match lexer.root() {
        Ok(()) => Ok(lexer.tokens),
        Err(fault) => Err(fault.at(lexer.line)),
    }
}

struct Lexer<'s> {
    rest: &'s str,
    line: usize,
    /// Whether the text before the rest ends with a line break.
    starts_line: bool,
    tokens: Vec<(usize, Token)>,
}

impl<'s> Lexer<'s> {
    /// Takes the next `length` bytes.
    fn take(&mut self, length: usize) -> &'s str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.starts_line = taken.ends_with('\n');
        self.rest = rest;
        taken
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((self.line, token));
    }

    /// Template text with its tags.
    fn root(&mut self) -> Result<()> {
        loop {
            let Some(at) = tag_start(self.rest) else {
                if !self.rest.is_empty() {
                    let text = Token::Text(self.rest.to_owned());
                    self.push(text);
                    self.take(self.rest.len());
                }
                self.push(Token::End);
                return Ok(());
            };
            let kind = self.rest.as_bytes()[at + 1];
            let sign = self.rest.as_bytes().get(at + 2).copied();
            self.text(at, sign, kind == b'{');
            let signed = usize::from(matches!(sign, Some(b'-' | b'+')));
            match kind {
                b'#' => {
                    self.take(2 + signed);
                    self.comment()?;
                }
                b'{' => {
                    self.push(Token::OutputStart);
                    self.take(2 + signed);
                    self.tag(|rest| match rest.strip_prefix("-}}") {
                        Some(after) => Some(rest.len() - after.trim_start_matches(is_space).len()),
                        None => rest.starts_with("}}").then_some(2),
                    })?;
                    self.push(Token::OutputEnd);
                }
                _ => match raw_start(&self.rest[2 + signed..]) {
                    Some(length) => {
                        self.take(2 + signed + length);
                        self.raw()?;
                    }
                    None => {
                        self.push(Token::BlockStart);
                        self.take(2 + signed);
                        self.tag(block_end)?;
                        self.push(Token::BlockEnd);
                    }
                },
            }
        }
    }

    /// Takes the text up to a tag at `at`, without the whitespace that its sign removes.
    fn text(&mut self, at: usize, sign: Option<u8>, is_output: bool) {
        let line = self.line;
        let may_strip = self.starts_line;
        let text = self.take(at);
        let kept = match sign {
            Some(b'-') => text.trim_end_matches(is_space),
            Some(b'+') => text,
            _ if is_output => text,
            _ => {
                let start = text.rfind('\n').map_or(0, |at| at + 1);
                let is_blank = text[start..].chars().all(is_space);
                if is_blank && (start > 0 || may_strip) { &text[..start] } else { text }
            }
        };
        if !kept.is_empty() {
            self.tokens.push((line, Token::Text(kept.to_owned())));
        }
    }

    fn comment(&mut self) -> Result<()> {
        let Some(at) = self.rest.find("#}") else {
            return fail("the comment `{#` has no end `#}`");
        };
        let signed = self.rest[..at].bytes().next_back();
        let after = &self.rest[at + 2..];
        let spaces = match signed {
            Some(b'-') => after.len() - after.trim_start_matches(is_space).len(),
            Some(b'+') => 0,
            _ => usize::from(after.starts_with('\n')),
        };
        self.take(at + 2 + spaces);
        Ok(())
    }

    /// The text of `{% raw %}` up to its end.
    fn raw(&mut self) -> Result<()> {
        let mut from = 0;
        while let Some(found) = self.rest[from..].find("{%") {
            let at = from + found;
            from = at + 2;
            let sign = self.rest.as_bytes().get(from).copied();
            let signed = usize::from(matches!(sign, Some(b'-' | b'+')));
            let name = self.rest[from + signed..].trim_start_matches(is_space);
            let Some(after) = name.strip_prefix("endraw") else { continue };
            let Some(end) = block_end(after.trim_start_matches(is_space)) else { continue };
            let spaces = after.len() - after.trim_start_matches(is_space).len();
            let length = self.rest.len() - at - after.len() + spaces + end;
            self.text(at, sign, false);
            self.take(length);
            return Ok(());
        }
        fail("`{% raw %}` has no end `{% endraw %}`")
    }

    /// The tokens of a tag and its end, whose length `end` gives.
    fn tag(&mut self, end: impl Fn(&str) -> Option<usize>) -> Result<()> {
        let mut open: Vec<&str> = Vec::new();
        let mut after_dot = false;
        loop {
            if open.is_empty()
                && let Some(length) = end(self.rest)
            {
                self.take(length);
                return Ok(());
            }
            let spaces = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            if spaces > 0 {
                self.take(spaces);
                after_dot = false;
                continue;
            }
            let Some(first) = self.rest.chars().next() else {
                return fail("the template ends within a tag");
            };
            if let Some((literal, length)) = number(self.rest, after_dot)? {
                match literal {
                    Literal::Int(whole) => self.push(Token::Int(whole)),
                    Literal::Float(float) => self.push(Token::Float(float)),
                    _ => {}
                }
                self.take(length);
                after_dot = false;
                continue;
            }
            after_dot = false;
            if first == '_' || first.is_alphanumeric() {
                let is_word = |c: char| c == '_' || c.is_alphanumeric();
                let length = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
                let name = Token::Name(self.rest[..length].into());
                self.push(name);
                self.take(length);
                continue;
            }
            if let Some(length) = string_length(self.rest) {
                let text = unescaped(&self.rest[1..length - 1])?;
                self.push(Token::String(text));
                self.take(length);
                continue;
            }
            let operator = OPERATORS.into_iter().find(|of| self.rest.starts_with(of));
            let Some(operator) = operator else { return Err(unexpected(first)) };
            match operator {
                "(" => open.push(")"),
                "[" => open.push("]"),
                "{" => open.push("}"),
                ")" | "]" | "}" if open.pop() != Some(operator) => {
                    return fail(format!("`{operator}` closes nothing"));
                }
                _ => {}
            }
            self.push(Token::Operator(operator));
            self.take(operator.len());
            after_dot = operator == ".";
        }
    }
}

fn unexpected(character: char) -> TemplateFault {
    match character {
        '\'' | '"' => TemplateFault::new("a string literal has no end"),
        other => TemplateFault::new(format!("unexpected character `{other}`")),
    }
}

/// Where the next `{{`, `{%` or `{#` is.
fn tag_start(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    bytes.windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// The length of the rest of `{% raw %}` after its `{%`.
fn raw_start(text: &str) -> Option<usize> {
    let after = text.trim_start_matches(is_space).strip_prefix("raw")?;
    let after = after.trim_start_matches(is_space);
    let after = match after.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(is_space),
        None => after.strip_prefix("%}")?,
    };
    Some(text.len() - after.len())
}

/// The length of the end of a block at the start of `text`, with the whitespace that it removes.
fn block_end(text: &str) -> Option<usize> {
    if let Some(after) = text.strip_prefix("-%}") {
        return Some(text.len() - after.trim_start_matches(is_space).len());
    }
    if text.starts_with("+%}") {
        return Some(3);
    }
    let after = text.strip_prefix("%}")?;
    Some(2 + usize::from(after.starts_with('\n')))
}

/// The length of the string literal at the start of `text`, with its quotes.
fn string_length(text: &str) -> Option<usize> {
    let quote = *text.as_bytes().first().filter(|quote| matches!(quote, b'\'' | b'"'))?;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            _ if byte == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}
