//! Extraction of numbers.

/// The numbers in `text`, in order. Digits that belong to a word or a unit (`room2`, `m2`, `m^2`)
/// do not count; thousands separators are dropped.
pub(super) fn parse_numbers(text: &str) -> Vec<f64> {
    let mut numbers = Vec::new();
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let length = if previous.is_alphanumeric() || matches!(previous, '^' | '_') {
            None
        } else {
            number_length(rest, previous)
        };
        match length {
            Some(length) => {
                let digits: String = rest[..length].chars().filter(|&char| char != ',').collect();
                numbers.extend(digits.parse::<f64>().ok().filter(|number| number.is_finite()));
                previous = '0';
                rest = &rest[length..];
            }
            None => {
                previous = first;
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    numbers
}

/// The length in bytes of the number at the start of `text`, including its sign.
fn number_length(text: &str, previous: char) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits_from = |start: usize| {
        bytes[start.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    // A dash after a number or a bracket is a range or a difference, not a sign.
    let signed = matches!(bytes.first(), Some(b'-' | b'+')) && !matches!(previous, ')' | ']');
    let start = usize::from(signed);
    let mut end = start + digits_from(start);
    if (1..=3).contains(&(end - start)) {
        while bytes.get(end) == Some(&b',') && digits_from(end + 1) == 3 {
            end += 4;
        }
    }
    if bytes.get(end) == Some(&b'.') && digits_from(end + 1) > 0 {
        end += 1 + digits_from(end + 1);
    }
    if end == start {
        return None;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        let digits = digits_from(end + 1 + sign);
        if digits > 0 {
            end += 1 + sign + digits;
        }
    }
    Some(end)
}
