//! Extraction of positions.

use super::characters::fold;
use super::numbers::whole_number;

/// The three numbers of `text`, in brackets of any kind or none; `None` if it holds anything else, or another number of
/// them, or one that is not finite.
pub(super) fn parse_position(text: &str) -> Option<[f64; 3]> {
    let opens = |char: char| char.is_whitespace() || matches!(char, '[' | '(' | '{' | '【');
    let closes = |char: char| char.is_whitespace() || matches!(char, ']' | ')' | '}' | '】');
    let text = fold(text);
    let inner = text.trim_start_matches(opens).trim_end_matches(closes);
    // Commas separate if there are any, so that `1,,2` has an empty part.
    let parts: Vec<&str> = match inner.contains([',', '、']) {
        true => inner.split([',', '、']).collect(),
        false => inner.split_whitespace().collect(),
    };
    let numbers: Vec<f64> = parts.into_iter().map(whole_number).collect::<Option<_>>()?;
    numbers.try_into().ok()
}
