//! VSI-Bench's answer matching, as in its official scorer (the `vsibench` task of lmms-eval): the
//! first word, without trailing full stops; a number as Python's `float` reads it.

use embodied_r_rewards::answer::decimal_digit;

/// Whether the first word of `answer` is `solution`, ignoring case.
pub(super) fn matches(answer: &str, solution: &str) -> bool {
    first_word(answer).to_lowercase() == solution.to_lowercase()
}

/// The first word of `answer` as a number.
pub(super) fn number(answer: &str) -> Option<f64> {
    float(first_word(answer))
}

/// Python's `float(text)`: digits of any script, `_` between digits, and no minus sign but `-`.
pub(super) fn float(text: &str) -> Option<f64> {
    let text: String =
        text.trim().chars().map(|char| decimal_digit(char).unwrap_or(char)).collect();
    let bytes = text.as_bytes();
    let is_digit =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let between_digits =
        |(at, _): (usize, &str)| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
    if !text.match_indices('_').all(between_digits) {
        return None;
    }
    text.replace('_', "").parse().ok()
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

    #[test]
    fn a_number_is_what_pythons_float_reads() {
        for (answer, value) in [
            ("３", 3.0),
            ("٣.٥", 3.5),
            ("-3", -3.0),
            ("+.5", 0.5),
            ("1_000", 1000.0),
            ("1_0.0_1e1_0", 1.001e11),
            ("1e400", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
        ] {
            assert_eq!(number(answer), Some(value), "`{answer}`");
        }
        for answer in [
            "−3", "－3", "–3", "3．5", "_1", "1_", "1__0", "1_.5", "1_e5", "10^3", "3½", "0x10",
            "1,200", "3个", "３。", "e5", "--3",
        ] {
            assert_eq!(number(answer), None, "`{answer}`");
        }
    }
}
