//! Extraction of positions.

/// The three numbers of `text`, in brackets of any kind or none; `None` if it holds anything else, or another number of
/// them, or one that is not finite.
pub(super) fn parse_position(text: &str) -> Option<[f64; 3]> {
    let opens = |char: char| char.is_whitespace() || matches!(char, '[' | '(' | '{');
    let closes = |char: char| char.is_whitespace() || matches!(char, ']' | ')' | '}');
    let inner = text.trim_start_matches(opens).trim_end_matches(closes);
    // Commas separate if there are any, so that `1,,2` has an empty part.
    let parts: Vec<&str> = match inner.contains(',') {
        true => inner.split(',').map(str::trim).collect(),
        false => inner.split_whitespace().collect(),
    };
    let numbers: Vec<f64> = parts.into_iter().map(number).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// A finite number in digits; Rust also parses words such as `inf`.
fn number(text: &str) -> Option<f64> {
    let digits =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(digits) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}
