//! UrbanVideo-Bench's answer matching, as in its official scorer: the character after `Option:`,
//! whitespace and opening brackets; otherwise the first character in upper case.

use crate::extract::pattern::is_word;

const MARK: &str = "Option:";

/// The option that `answer` names; `None` for an empty answer.
pub(crate) fn option(answer: &str) -> Option<String> {
    let marked = answer.match_indices(MARK).find_map(|(at, _)| {
        let rest = &answer[at + MARK.len()..];
        let rest = rest.trim_start_matches(|char: char| char == '[' || char.is_whitespace());
        rest.chars().next().filter(|&char| is_word(char))
    });
    match marked {
        Some(char) => Some(char.to_string()),
        None => answer.chars().next().map(|first| first.to_uppercase().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_character_after_the_marker_is_the_option() {
        for (answer, read) in [
            ("Option: [B]; Reason: [it is near]", "B"),
            ("Option:B", "B"),
            ("Option: \n[ [B", "B"),
            ("I think so. Option: C. Option: D", "C"),
            ("Option: b", "b"),
            ("Option: []; Option: E", "E"),
            ("Option: _", "_"),
            ("Option: Ⓑ. Option: C", "C"),
        ] {
            assert_eq!(option(answer).as_deref(), Some(read), "`{answer}`");
        }
    }

    #[test]
    fn without_the_marker_it_is_the_first_character() {
        for (answer, read) in [
            ("B", "B"),
            ("b. left", "B"),
            (" B", " "),
            ("(B)", "("),
            ("option: B", "O"),
            ("Option: []", "O"),
        ] {
            assert_eq!(option(answer).as_deref(), Some(read), "`{answer}`");
        }
        assert_eq!(option(""), None);
    }
}
