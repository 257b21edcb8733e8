//! Where format strings have widths and precisions. Digits elsewhere are text, names or keys.

/// The flags, width and precision of each specifier of a printf-style format.
pub(super) fn printf(format: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let key = after.strip_prefix('(').and_then(|key| key.split_once(')'));
        let after = key.map_or(after, |(_, after)| after);
        let is_type = |c: char| !matches!(c, '#' | '-' | ' ' | '+' | '.' | '*' | '0'..='9');
        let (specifier, after) = after.split_at(after.find(is_type).unwrap_or(after.len()));
        found.push(specifier);
        rest = after;
    }
    found
}

/// What follows the colon, and the fill, of each field of a format for `str.format`.
pub(super) fn str_format(format: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('{') {
        if let Some(after) = after.strip_prefix('{') {
            rest = after;
            continue;
        }
        rest = after_name(after);
        let Some(specifier) = rest.strip_prefix(':') else { continue };
        // A fill may be any character, also a digit or a brace.
        let mut chars = specifier.chars();
        let is_filled = chars.next().is_some() && matches!(chars.next(), Some('<' | '>' | '^'));
        let specifier = if is_filled { chars.as_str() } else { specifier };
        let (specifier, after) = specifier.split_at(specifier.find('}').unwrap_or(specifier.len()));
        found.push(specifier);
        rest = after;
    }
    found
}

/// The rest of a field after its name, whose keys in brackets may have any character.
fn after_name(field: &str) -> &str {
    let mut rest = field;
    while let Some(at) = rest.find(['[', ':', '{', '}']) {
        let key = rest[at..].strip_prefix('[').and_then(|key| key.split_once(']'));
        match key {
            Some((_, after)) => rest = after,
            None => return &rest[at..],
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_is_between_the_percent_sign_and_the_type() {
        let digits = printf("2023 %% 1 %s 2 %-05.7f 3 %(k9)12d %*d %%%4x %");
        assert_eq!(digits, ["", "-05.7", "12", "*", "4", ""]);
    }

    #[test]
    fn a_width_is_after_the_colon_and_the_fill() {
        let fields = str_format("2023 {{:9}} {0} {a[:5}].b:7} {:0>12.3f} {:}^8} {:6");
        assert_eq!(fields, ["7", "12.3f", "8", "6"]);
    }
}
