//! VSI-Bench's answer matching, as in its official scorer (the `vsibench` task of lmms-eval): the
//! first word, without trailing full stops; a number as Python's `float` reads it.

use crate::extract::python::float;

/// The first word of `answer` as a number.
pub(crate) fn number(answer: &str) -> Option<f64> {
    float(first_word(answer))
}

/// Split at spaces only, not at all whitespace: an answer with a leading space is empty.
pub(crate) fn first_word(answer: &str) -> &str {
    answer.split(' ').next().unwrap_or_default().trim_end_matches('.').trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_ends_at_a_space_and_has_no_full_stops_behind_it() {
        for (answer, word) in [
            ("B", "B"),
            ("B...", "B"),
            ("B. the chair", "B"),
            ("B, the chair", "B,"),
            ("B\n. x", "B"),
            ("B.\n", "B."),
            (" B", ""),
        ] {
            assert_eq!(first_word(answer), word, "`{answer}`");
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
