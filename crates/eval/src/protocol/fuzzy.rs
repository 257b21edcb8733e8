//! VSI-Bench's answer matching, as in its official scorer (the `vsibench` task of lmms-eval): the
//! first word, without trailing full stops.

/// Whether the first word of `answer` is `solution`, ignoring case.
pub(super) fn matches(answer: &str, solution: &str) -> bool {
    first_word(answer).to_lowercase() == solution.to_lowercase()
}

/// The first word of `answer` as a number.
pub(super) fn number(answer: &str) -> Option<f64> {
    first_word(answer).parse().ok()
}

/// Split at spaces only, not at all whitespace: an answer with a leading space is empty.
fn first_word(answer: &str) -> &str {
    answer.split(' ').next().unwrap_or_default().trim_end_matches('.').trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_compared_ignoring_case() {
        for answer in
            ["B", "b", "B.", "B...", "B. the chair", "b and more", "\nB.", "B\n", "B\n. x"]
        {
            assert!(matches(answer, "B"), "`{answer}`");
        }
        for answer in ["", " B", "(B)", "B)", "B, the chair", "B.\n", "AB", "the answer is B"] {
            assert!(!matches(answer, "B"), "`{answer}`");
        }
    }

    #[test]
    fn the_first_word_is_the_number() {
        for (answer, value) in [
            ("3", 3.0),
            ("3.5.", 3.5),
            ("3. m", 3.0),
            ("3 chairs", 3.0),
            ("\t3\n", 3.0),
            ("1e1", 10.0),
        ] {
            assert_eq!(number(answer), Some(value), "`{answer}`");
        }
        for answer in ["", " 3", "3m", "three", "3,5", "about 3"] {
            assert_eq!(number(answer), None, "`{answer}`");
        }
    }
}
