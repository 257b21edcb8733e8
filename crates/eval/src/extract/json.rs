//! JSON as Python's `json.loads` reads it: with `NaN` and `Infinity`, lone surrogates, and the last of equal keys.

use crate::extract::cursor::Cursor;
use crate::extract::value::Value;

/// Python's recursion limit leaves room for about as many levels.
const MAX_DEPTH: usize = 990;

/// The value of a text; `None` if Python would refuse it.
pub(crate) fn json(text: &str) -> Option<Value> {
    let mut parser = Parser { cursor: Cursor::new(text), depth: 0 };
    let value = parser.value()?;
    parser.space();
    parser.cursor.rest().is_empty().then_some(value)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    depth: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        self.cursor.take_while(|char| matches!(char, ' ' | '\t' | '\n' | '\r'));
    }

    /// Passes a mark with the white space before it.
    fn take(&mut self, mark: &str) -> bool {
        self.space();
        self.cursor.take(mark)
    }

    fn value(&mut self) -> Option<Value> {
        self.space();
        match self.cursor.peek()? {
            '{' => self.nested(Self::object),
            '[' => self.nested(Self::array),
            '"' => self.string().map(Value::Text),
            '-' | '0'..='9' => self.number(),
            _ => self.word(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Option<Value>) -> Option<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.cursor.advance();
        let value = read(self)?;
        self.depth -= 1;
        Some(value)
    }

    fn array(&mut self) -> Option<Value> {
        let mut items = Vec::new();
        if self.take("]") {
            return Some(Value::List(items));
        }
        loop {
            items.push(self.value()?);
            if !self.take(",") {
                return self.take("]").then_some(Value::List(items));
            }
        }
    }

    fn object(&mut self) -> Option<Value> {
        let mut fields = Vec::new();
        if self.take("}") {
            return Some(Value::Dictionary(fields));
        }
        loop {
            self.space();
            let key = Value::Text(self.string()?);
            if !self.take(":") {
                return None;
            }
            fields.push((key, self.value()?));
            if !self.take(",") {
                return self.take("}").then_some(Value::Dictionary(fields));
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        if !self.cursor.take("\"") {
            return None;
        }
        let mut text = String::new();
        loop {
            text.push_str(
                self.cursor.take_while(|char| char >= ' ' && char != '"' && char != '\\'),
            );
            match self.cursor.advance()? {
                '"' => return Some(text),
                '\\' => text.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.cursor.advance()? {
            char @ ('"' | '\\' | '/') => char,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unicode()?,
            _ => return None,
        })
    }

    /// The character of four hexadecimal digits, or of two escaped surrogates; a lone surrogate is replaced.
    fn unicode(&mut self) -> Option<char> {
        let code = self.cursor.hexadecimal(4)?;
        let mut after = self.cursor;
        if (0xd800..0xdc00).contains(&code)
            && after.take("\\u")
            && let Some(low @ 0xdc00..0xe000) = after.hexadecimal(4)
        {
            self.cursor = after;
            return char::from_u32(0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00));
        }
        Some(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn number(&mut self) -> Option<Value> {
        if self.cursor.take("-Infinity") {
            return Some(Value::Number(f64::NEG_INFINITY));
        }
        let start = self.cursor.rest();
        self.cursor.take("-");
        let is_digit = |char: char| char.is_ascii_digit();
        if !self.cursor.take("0") && self.cursor.take_while(is_digit).is_empty() {
            return None;
        }
        let mut is_integer = true;
        let mut after = self.cursor;
        if after.take(".") && !after.take_while(is_digit).is_empty() {
            (self.cursor, is_integer) = (after, false);
        }
        if let Some(after) = behind_exponent(self.cursor) {
            (self.cursor, is_integer) = (after, false);
        }
        let text = &start[..start.len() - self.cursor.rest().len()];
        if is_integer { Value::integer(text) } else { text.parse().ok().map(Value::Number) }
    }

    fn word(&mut self) -> Option<Value> {
        let words = [
            ("null", Value::NONE),
            ("true", Value::Number(1.0)),
            ("false", Value::Number(0.0)),
            ("NaN", Value::Number(f64::NAN)),
            ("Infinity", Value::Number(f64::INFINITY)),
        ];
        words.into_iter().find(|(word, _)| self.cursor.take(word)).map(|(_, value)| value)
    }
}

/// The place behind an exponent, if one comes next.
fn behind_exponent(mut cursor: Cursor<'_>) -> Option<Cursor<'_>> {
    if !cursor.take("e") && !cursor.take("E") {
        return None;
    }
    if !cursor.take("-") {
        cursor.take("+");
    }
    let digits = cursor.take_while(|char| char.is_ascii_digit());
    (!digits.is_empty()).then_some(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[f64]) -> Value {
        Value::List(values.iter().copied().map(Value::Number).collect())
    }

    #[test]
    fn values_are_those_of_python() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (source, expected) in [
            (" [1, -2.5e1,\n3E+2 ] ", numbers(&[1.0, -25.0, 300.0])),
            ("[true,false,-Infinity,1e999]", numbers(&[1.0, 0.0, -f64::INFINITY, f64::INFINITY])),
            ("[]", numbers(&[])),
            ("null", Value::NONE),
            ("-0", Value::Number(-0.0)),
            (r#""a\n\u00e9\ud83d\ude00\/""#, text("a\né😀/")),
            (r#""\ud800x""#, text("\u{fffd}x")),
            (r#"{"a": 1}"#, Value::Dictionary(vec![(text("a"), Value::Number(1.0))])),
        ] {
            assert_eq!(json(source), Some(expected), "{source}");
        }
        assert!(matches!(json("NaN"), Some(Value::Number(value)) if value.is_nan()));
        let twice = json(r#"{"a": 1, "a": 2}"#);
        assert_eq!(twice.as_ref().and_then(|value| value.get("a")), Some(&Value::Number(2.0)));
    }

    #[test]
    fn what_python_refuses_is_none() {
        for source in [
            "",
            "[1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "'a'",
            "\"a\nb\"",
            "\"\\x41\"",
            "\"\\u12g4\"",
            "{1: 2}",
            "{\"a\" 1}",
            "[1]x",
            "\u{feff}[1]",
            "[\u{a0}1]",
            "nan",
            "True",
            "[１]",
        ] {
            assert_eq!(json(source), None, "{source:?}");
        }
        assert_eq!(json(&"9".repeat(4301)), None);
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(json(&nested(900)).is_some());
        assert!(json(&nested(100_000)).is_none());
    }
}
