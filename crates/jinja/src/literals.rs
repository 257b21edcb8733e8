//! String and number literals.

use super::ast::Literal;
use super::fault::{Result, fail};

/// The value of a string literal between its quotes: Python's escapes.
pub(super) fn unescaped(literal: &str) -> Result<String> {
    let mut text = String::with_capacity(literal.len());
    let mut rest = literal;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(escape) = rest.chars().next() else { break };
        rest = &rest[escape.len_utf8()..];
        let simple = match escape {
            '\n' => continue,
            '\\' | '\'' | '"' => escape,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '0'..='7' => {
                let more = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let digits = format!("{escape}{}", &rest[..more]);
                rest = &rest[more..];
                character(u32::from_str_radix(&digits, 8).unwrap_or_default())?
            }
            'x' => hexadecimal(&mut rest, escape, 2)?,
            'u' => hexadecimal(&mut rest, escape, 4)?,
            'U' => hexadecimal(&mut rest, escape, 8)?,
            'N' => return fail("the escape `\\N{…}` is not supported, write the character itself"),
            ascii if ascii.is_ascii() => {
                text.push('\\');
                ascii
            }
            // jinja2 replaces it by an escape, whose backslash is then escaped.
            other => {
                let code = u32::from(other);
                text.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
                continue;
            }
        };
        text.push(simple);
    }
    text.push_str(rest);
    Ok(text)
}

fn hexadecimal(rest: &mut &str, escape: char, digits: usize) -> Result<char> {
    let code = rest.get(..digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
    let Some(code) = code else {
        return fail(format!("the escape `\\{escape}` needs {digits} hexadecimal digits"));
    };
    *rest = &rest[digits..];
    character(u32::from_str_radix(code, 16).unwrap_or(u32::MAX))
}

fn character(code: u32) -> Result<char> {
    match char::from_u32(code) {
        Some(character) => Ok(character),
        None => fail(format!("the escape of code {code:#x} is no Unicode character")),
    }
}

/// The number at the start of `source`, with its length. No number after a dot is a float.
pub(super) fn number(source: &str, after_dot: bool) -> Result<Option<(Literal, usize)>> {
    let bytes = source.as_bytes();
    if !bytes.first().is_some_and(u8::is_ascii_digit) {
        return Ok(None);
    }
    if let Some(length) = float_length(bytes).filter(|_| !after_dot) {
        let digits = source[..length].replace('_', "");
        return match digits.parse() {
            Ok(float) => Ok(Some((Literal::Float(float), length))),
            Err(_) => fail(format!("`{digits}` is no number")),
        };
    }
    let radix = match bytes.get(1).map(u8::to_ascii_lowercase) {
        Some(b'b') if bytes[0] == b'0' => 2,
        Some(b'o') if bytes[0] == b'0' => 8,
        Some(b'x') if bytes[0] == b'0' => 16,
        _ => 10,
    };
    let prefixed =
        2 + digits_length(&bytes[2.min(bytes.len())..], true, |b| char::from(b).is_digit(radix));
    let (start, length) = match radix {
        10 => (0, decimal_length(bytes)),
        _ if prefixed > 2 => (2, prefixed),
        _ => (0, decimal_length(bytes)),
    };
    let radix = if start == 0 { 10 } else { radix };
    let digits = source[start..length].replace('_', "");
    match i128::from_str_radix(&digits, radix) {
        Ok(whole) => Ok(Some((Literal::Int(whole), length))),
        Err(_) => fail(format!("the integer `{}` has more than 128 bits", &source[..length])),
    }
}

/// Decimal digits; a number that starts with 0 has only zeros.
fn decimal_length(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(b'0') => digits_length(bytes, false, |b| b == b'0'),
        _ => digits_length(bytes, false, |b| b.is_ascii_digit()),
    }
}

/// Digits with single underscores between them, or before the first if `leading`.
fn digits_length(bytes: &[u8], leading: bool, is_digit: impl Fn(u8) -> bool) -> usize {
    let mut length = 0;
    loop {
        let underscore = usize::from(bytes.get(length) == Some(&b'_') && (leading || length > 0));
        match bytes.get(length + underscore) {
            Some(b) if is_digit(*b) => length += underscore + 1,
            _ => return length,
        }
    }
}

/// Digits with a fraction, an exponent, or both.
fn float_length(bytes: &[u8]) -> Option<usize> {
    let digits = |at: usize| {
        let found =
            digits_length(bytes.get(at..).unwrap_or_default(), false, |b| b.is_ascii_digit());
        (found > 0).then_some(at + found)
    };
    let whole = digits(0)?;
    let fraction = match bytes.get(whole) {
        Some(b'.') => digits(whole + 1),
        _ => None,
    };
    let end = fraction.unwrap_or(whole);
    let exponent = match bytes.get(end) {
        Some(b'e' | b'E') => {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            digits(end + 1 + sign)
        }
        _ => None,
    };
    exponent.or(fraction)
}
