//! Counts the values of a JSON text before it is parsed: parsed, `{"a":0},` takes 40 times its bytes.

use crate::refusal::Refusal;

/// Maximum number of arrays, objects and fields in a body, such as messages and their parts: some 200 bytes each.
const MAX_CONTAINERS: usize = 1 << 16;

/// Maximum number of elements in a body, such as token ids: 72 bytes each.
const MAX_ELEMENTS: usize = 1 << 21;

/// Checks that the values of a body take at most a few hundred megabytes besides its text.
///
/// # Errors
/// It has too many values. Whether it is JSON is not checked.
pub(crate) fn check(body: &[u8]) -> Result<(), Refusal> {
    let (mut containers, mut elements) = (0, 0);
    let (mut is_in_string, mut is_escaped) = (false, false);
    for byte in body {
        match (is_in_string, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (true, b'"') => is_in_string = false,
            (true, _) => {}
            (false, b'"') => is_in_string = true,
            (false, b'{' | b'[' | b':') => containers += 1,
            (false, b',') => elements += 1,
            (false, _) => {}
        }
    }
    match (containers > MAX_CONTAINERS, elements > MAX_ELEMENTS) {
        (true, _) => Err(Refusal::too_many_values(MAX_CONTAINERS, "arrays, objects and fields")),
        (_, true) => Err(Refusal::too_many_values(MAX_ELEMENTS, "elements")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings_only() {
        assert!(check("[".repeat(MAX_CONTAINERS).as_bytes()).is_ok());
        assert!(check("{".repeat(MAX_CONTAINERS + 1).as_bytes()).is_err());
        assert!(check(":".repeat(MAX_CONTAINERS + 1).as_bytes()).is_err());
        assert!(check(",".repeat(MAX_ELEMENTS + 1).as_bytes()).is_err());
        let text = format!(r#"["\\", "a\"{}"]"#, "[{,".repeat(MAX_ELEMENTS));
        assert!(check(text.as_bytes()).is_ok());
        let text = format!(r#"["\\", "a\"", {}]"#, "[{,".repeat(MAX_ELEMENTS));
        assert!(check(text.as_bytes()).is_err());
    }
}
