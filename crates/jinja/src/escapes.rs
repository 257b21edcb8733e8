//! Text out of HTML, and URLs.

use std::fmt::Write as _;

use super::fault::{Result, fail};
use super::text::is_space;

/// The text of HTML without its tags and comments, with single spaces.
pub(super) fn striptags(html: &str) -> Result<String> {
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, tag)) = rest.split_once('<') {
        let after = match tag.strip_prefix("!--") {
            Some(comment) => comment.split_once("-->"),
            None => tag.split_once('>'),
        };
        let Some((_, after)) = after else { break };
        text.push_str(before);
        rest = after;
    }
    text.push_str(rest);
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    unescape_html(&words.join(" "))
}

/// Python's `html.unescape` for numbers and the usual names.
pub(super) fn unescape_html(html: &str) -> Result<String> {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('&') {
        text.push_str(before);
        rest = after;
        if let Some(number) = after.strip_prefix('#') {
            let (radix, digits) = match number.strip_prefix(['x', 'X']) {
                Some(digits) => (16, digits),
                None => (10, number),
            };
            let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
            let code = u32::from_str_radix(&digits[..end], radix).ok();
            match code.and_then(char::from_u32).filter(|c| !c.is_control() || *c == '\n') {
                Some(c) => text.push(c),
                None if end == 0 => {
                    text.push('&');
                    continue;
                }
                None => return fail("an HTML character reference is not supported"),
            }
            rest = digits[end..].strip_prefix(';').unwrap_or(&digits[end..]);
            continue;
        }
        let end = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let known = [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("nbsp", '\u{a0}')];
        let has_end = after[end..].starts_with(';');
        if let Some((name, c)) = known.iter().find(|(name, _)| after.starts_with(name)) {
            text.push(*c);
            rest = &after[name.len()..];
            rest = rest.strip_prefix(';').unwrap_or(rest);
        } else if has_end && &after[..end] == "apos" {
            text.push('\'');
            rest = &after[end + 1..];
        } else if has_end && end > 0 {
            return fail(format!("the HTML entity `&{};` is not supported", &after[..end]));
        } else {
            text.push('&');
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// A text in a URL; in a query string, slashes are quoted and spaces are plus signs.
pub(super) fn quote_url(text: &str, in_query: bool) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                quoted.push(char::from(byte));
            }
            b'/' if !in_query => quoted.push('/'),
            b' ' if in_query => quoted.push('+'),
            _ => {
                let _ = write!(quoted, "%{byte:02X}");
            }
        }
    }
    quoted
}
