//! Literals of Python, as `ast.literal_eval` reads them, but for sums with brackets and characters by name (`\N{BULLET}`).

use std::borrow::Cow;

use crate::extract::cursor::Cursor;
use crate::extract::value::Value;

/// Python refuses more brackets inside each other.
const MAX_DEPTH: usize = 200;

/// The value of a literal; `None` if Python would refuse it.
pub(crate) fn literal(text: &str) -> Option<Value> {
    if text.contains('\0') {
        return None;
    }
    let text = match text.contains('\r') {
        true => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
        false => Cow::Borrowed(text),
    };
    let text = text.trim_start_matches([' ', '\t']);
    let mut parser = Parser { cursor: Cursor::new(text), depth: 0 };
    parser.skip_lines()?;
    let value = parser.expressions()?;
    parser.skip_lines();
    parser.cursor.rest().is_empty().then_some(value)
}

const ELLIPSIS: Value = Value::Other { is_true: true, is_hashable: true };

/// A number as it is written.
enum Numeral {
    Real(Value),
    /// Whether it is not zero.
    Imaginary(bool),
}

impl Numeral {
    fn value(self) -> Value {
        match self {
            Self::Real(value) => value,
            Self::Imaginary(is_true) => Value::Other { is_true, is_hashable: true },
        }
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    depth: usize,
}

impl Parser<'_> {
    /// Passes white space and comments; line breaks only between brackets.
    fn space(&mut self) {
        loop {
            self.cursor.take_while(|char| matches!(char, ' ' | '\t' | '\u{c}'));
            self.comment();
            let is_continued = self.cursor.take("\\\n");
            if !is_continued && (self.depth == 0 || !self.cursor.take("\n")) {
                return;
            }
        }
    }

    fn comment(&mut self) {
        if self.cursor.peek() == Some('#') {
            self.cursor.take_while(|char| char != '\n');
        }
    }

    /// Passes empty lines and comments around the expression. `None` if the line behind them is indented.
    fn skip_lines(&mut self) -> Option<()> {
        self.space();
        while self.cursor.take("\n") {
            let indent = self.cursor.take_while(|char| matches!(char, ' ' | '\t' | '\u{c}'));
            self.comment();
            let is_expression = !matches!(self.cursor.peek(), None | Some('\n'));
            if is_expression && indent.ends_with([' ', '\t']) {
                return None;
            }
        }
        Some(())
    }

    fn take(&mut self, mark: &str) -> bool {
        self.space();
        self.cursor.take(mark)
    }

    /// An expression, or a tuple without brackets.
    fn expressions(&mut self) -> Option<Value> {
        let first = self.value()?;
        if !self.take(",") {
            return Some(first);
        }
        let mut items = vec![first];
        loop {
            self.space();
            if matches!(self.cursor.peek(), None | Some('\n')) {
                return Some(Value::Tuple(items));
            }
            items.push(self.value()?);
            if !self.take(",") {
                return Some(Value::Tuple(items));
            }
        }
    }

    fn value(&mut self) -> Option<Value> {
        self.space();
        match self.cursor.peek()? {
            '[' => self.nested("]", Self::list),
            '(' => self.nested(")", Self::brackets),
            '{' => self.nested("}", Self::braces),
            '\'' | '"' => self.strings(),
            '.' if self.cursor.take("...") => Some(ELLIPSIS),
            '0'..='9' | '.' | '+' | '-' => self.signed(),
            _ => self.word(),
        }
    }

    fn nested<T>(
        &mut self,
        end: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Option<T>,
    ) -> Option<T> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.cursor.advance();
        self.depth += 1;
        let value = read(self, end)?;
        self.depth -= 1;
        Some(value)
    }

    /// The values up to `end`, and whether a comma is behind the last one.
    fn values(&mut self, end: &str) -> Option<(Vec<Value>, bool)> {
        let (mut values, mut has_comma) = (Vec::new(), false);
        loop {
            if self.take(end) {
                return Some((values, has_comma));
            }
            values.push(self.value()?);
            has_comma = self.take(",");
            if !has_comma {
                return self.take(end).then_some((values, has_comma));
            }
        }
    }

    fn list(&mut self, end: &'static str) -> Option<Value> {
        self.values(end).map(|(items, _)| Value::List(items))
    }

    /// A tuple, or brackets around one value.
    fn brackets(&mut self, end: &'static str) -> Option<Value> {
        let (mut items, has_comma) = self.values(end)?;
        match items.len() == 1 && !has_comma {
            true => items.pop(),
            false => Some(Value::Tuple(items)),
        }
    }

    /// A dictionary or a set.
    fn braces(&mut self, end: &'static str) -> Option<Value> {
        let mut fields = Vec::new();
        if self.take(end) {
            return Some(Value::Dictionary(fields));
        }
        let mut key = self.key()?;
        if !self.take(":") {
            return self.set(end);
        }
        loop {
            fields.push((key, self.value()?));
            let has_comma = self.take(",");
            if self.take(end) {
                return Some(Value::Dictionary(fields));
            }
            if !has_comma {
                return None;
            }
            key = self.key()?;
            if !self.take(":") {
                return None;
            }
        }
    }

    /// The set whose first value was read.
    fn set(&mut self, end: &'static str) -> Option<Value> {
        while !self.take(end) {
            if !self.take(",") {
                return None;
            }
            if self.take(end) {
                break;
            }
            self.key()?;
        }
        Some(Value::Other { is_true: true, is_hashable: false })
    }

    fn key(&mut self) -> Option<Value> {
        self.value().filter(Value::is_hashable)
    }

    /// A number with a sign or without, or the sum of a real and an imaginary one.
    fn signed(&mut self) -> Option<Value> {
        let sign = if self.cursor.peek() == Some('-') { -1.0 } else { 1.0 };
        let left = if self.operator() { self.operand(sign) } else { self.numeral(sign) }?;
        self.space();
        if !self.operator() {
            return Some(left.value());
        }
        match (left, self.operand(1.0)?) {
            (Numeral::Real(real), Numeral::Imaginary(is_true)) => {
                Some(Value::Other { is_true: is_true || real.is_true(), is_hashable: true })
            }
            _ => None,
        }
    }

    /// The number behind a sign, which brackets may surround.
    fn operand(&mut self, sign: f64) -> Option<Numeral> {
        if self.cursor.peek() != Some('(') {
            return self.numeral(sign);
        }
        self.nested(")", |parser, end| {
            parser.space();
            let number = parser.operand(sign)?;
            parser.take(end).then_some(number)
        })
    }

    /// Passes a sign with the white space behind it, if it comes next.
    fn operator(&mut self) -> bool {
        let is_sign = self.cursor.take("-") || self.cursor.take("+");
        if is_sign {
            self.space();
        }
        is_sign
    }

    fn numeral(&mut self, sign: f64) -> Option<Numeral> {
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if self.cursor.take(prefix) || self.cursor.take(&prefix.to_ascii_uppercase()) {
                let value = self.whole(radix)?;
                return Some(Numeral::Real(Value::from_integer(sign * value)));
            }
        }
        let (mut text, mut is_integer) = (self.digits(10), true);
        if self.cursor.take(".") {
            is_integer = false;
            text.push('.');
            text.push_str(&self.digits(10));
        }
        if let Some(exponent) = self.exponent() {
            is_integer = false;
            text.push_str(&exponent);
        }
        if self.cursor.take("j") || self.cursor.take("J") {
            return text.parse::<f64>().ok().map(|value| Numeral::Imaginary(value != 0.0));
        }
        if !is_integer {
            let value = text.parse::<f64>().ok()?;
            return Some(Numeral::Real(Value::Number(sign * value)));
        }
        // Zero may be written with several digits, no other number with a zero in front.
        if text.starts_with('0') && text.contains(|char| char != '0') {
            return None;
        }
        Some(Numeral::Real(match Value::integer(&text)? {
            Value::Number(value) => Value::Number(sign * value),
            other => other,
        }))
    }

    /// Digits with single `_` between them, which are left out.
    fn digits(&mut self, radix: u32) -> String {
        let mut digits = String::new();
        loop {
            let part = self.cursor.take_while(|char| char.is_digit(radix));
            digits.push_str(part);
            let mut after = self.cursor;
            let goes_on = after.take("_") && after.peek().is_some_and(|char| char.is_digit(radix));
            if part.is_empty() || !goes_on {
                return digits;
            }
            self.cursor = after;
        }
    }

    /// An exponent with its letter, if there is one.
    fn exponent(&mut self) -> Option<String> {
        let mut after = self.cursor;
        if !after.take("e") && !after.take("E") {
            return None;
        }
        let sign = if after.take("-") { "-" } else { "" };
        if sign.is_empty() {
            after.take("+");
        }
        if !after.peek()?.is_ascii_digit() {
            return None;
        }
        self.cursor = after;
        Some(format!("e{sign}{}", self.digits(10)))
    }

    /// A whole number behind its prefix. A float is exact enough: points beyond 2^53 lie outside every image.
    fn whole(&mut self, radix: u32) -> Option<f64> {
        self.cursor.take("_");
        let digits = self.digits(radix);
        let add = |sum: f64, char: char| {
            sum * f64::from(radix) + f64::from(char.to_digit(radix).unwrap_or_default())
        };
        (!digits.is_empty()).then(|| digits.chars().fold(0.0, add))
    }

    /// A name, or the prefix of a string.
    fn word(&mut self) -> Option<Value> {
        let start = self.cursor;
        let word = self.cursor.take_while(|char| char.is_alphanumeric() || char == '_');
        if matches!(self.cursor.peek(), Some('\'' | '"')) {
            self.cursor = start;
            return self.strings();
        }
        match word {
            "None" => Some(Value::NONE),
            "True" => Some(Value::Number(1.0)),
            "False" => Some(Value::Number(0.0)),
            "set" if self.take("(") && self.take(")") => {
                Some(Value::Other { is_true: false, is_hashable: false })
            }
            _ => None,
        }
    }

    /// Strings beside each other, which are one; all of them are texts, or all of them bytes.
    fn strings(&mut self) -> Option<Value> {
        let (mut text, is_bytes) = self.string()?;
        while self.starts_string() {
            let (next, next_is_bytes) = self.string()?;
            if next_is_bytes != is_bytes {
                return None;
            }
            text.push_str(&next);
        }
        Some(if is_bytes { Value::Bytes(text) } else { Value::Text(text) })
    }

    fn starts_string(&mut self) -> bool {
        self.space();
        let mut after = self.cursor;
        after.take_while(|char| char.is_ascii_alphabetic());
        matches!(after.peek(), Some('\'' | '"'))
    }

    /// A string with its prefix, and whether it is one of bytes.
    fn string(&mut self) -> Option<(String, bool)> {
        let prefix = self.cursor.take_while(|char| char.is_ascii_alphabetic());
        let (is_raw, is_bytes) = match prefix.to_ascii_lowercase().as_str() {
            "" | "u" => (false, false),
            "r" => (true, false),
            "b" => (false, true),
            "br" | "rb" => (true, true),
            _ => return None,
        };
        let quotes = ["'''", "\"\"\"", "'", "\""];
        let quote = quotes.into_iter().find(|quote| self.cursor.take(quote))?;
        let mut text = String::new();
        while !self.cursor.take(quote) {
            match self.cursor.advance()? {
                '\n' if quote.len() == 1 => return None,
                '\\' if is_raw => text.extend(['\\', self.cursor.advance()?]),
                '\\' => self.escape(is_bytes, &mut text)?,
                char => text.push(char),
            }
        }
        (!is_bytes || text.is_ascii()).then_some((text, is_bytes))
    }

    /// What stands behind a backslash.
    fn escape(&mut self, is_bytes: bool, text: &mut String) -> Option<()> {
        let char = match self.cursor.advance()? {
            '\n' => return Some(()),
            char @ ('\\' | '\'' | '"') => char,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            digit @ '0'..='7' => self.octal(digit),
            'x' => char::from_u32(self.cursor.hexadecimal(2)?)?,
            'u' if !is_bytes => character(self.cursor.hexadecimal(4)?)?,
            'U' if !is_bytes => character(self.cursor.hexadecimal(8)?)?,
            'N' if !is_bytes => return None,
            other => {
                text.extend(['\\', other]);
                return Some(());
            }
        };
        // A byte beyond ASCII matters as little as any other in bytes.
        text.push(if is_bytes && !char.is_ascii() { '?' } else { char });
        Some(())
    }

    /// The character of up to three octal digits.
    fn octal(&mut self, first: char) -> char {
        let mut code = first.to_digit(8).unwrap_or_default();
        for _ in 0..2 {
            let Some(digit) = self.cursor.peek().and_then(|char| char.to_digit(8)) else { break };
            code = code * 8 + digit;
            self.cursor.advance();
        }
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

/// The character of a code; surrogates are replaced.
fn character(code: u32) -> Option<char> {
    (code <= 0x10_ffff).then(|| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests;
