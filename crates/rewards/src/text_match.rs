//! Texts compared with each other: equality and word error rate.

use crate::answer::fold;

/// Whether two texts are equal but for case, white space, the width of characters and a final full stop.
pub fn is_same_text(answer: &str, reference: &str) -> bool {
    let normal = |text: &str| {
        let text = fold(text.trim());
        let text = text.strip_suffix(['.', '。']).unwrap_or(&text).to_lowercase();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    normal(answer) == normal(reference)
}

/// The word error rate of `answer`: the substitutions, deletions and insertions of words that make it `reference`,
/// per word of `reference`. 0 if they are equal; above 1 for an answer that is much longer.
pub fn word_error_rate(answer: &str, reference: &str) -> f64 {
    let reference: Vec<&str> = reference.split_whitespace().collect();
    // The distances of each start of `reference` to the words of `answer` so far.
    let mut distances: Vec<usize> = (0..=reference.len()).collect();
    for (count, word) in answer.split_whitespace().enumerate() {
        let mut diagonal = distances[0];
        distances[0] = count + 1;
        for (index, expected) in reference.iter().enumerate() {
            let above = distances[index + 1];
            distances[index + 1] = match word == *expected {
                true => diagonal,
                false => 1 + diagonal.min(above).min(distances[index]),
            };
            diagonal = above;
        }
    }
    distances[reference.len()] as f64 / reference.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_space_and_a_full_stop_do_not_matter() {
        assert!(is_same_text(" The  red\ndoor. ", "the red door"));
        assert!(!is_same_text("the red doors", "the red door"));
        assert!(!is_same_text("3.5", "35"));
        assert!(is_same_text("３号门。", "3号门") && is_same_text("Ｅxit", "exit"));
        assert!(is_same_text("", " ."));
    }

    #[test]
    fn the_word_error_rate_counts_edits_per_word_of_the_reference() {
        for (answer, reference, expected) in [
            ("exit only", "exit only", 0.0),
            ("exit", "exit only", 0.5),
            ("no exit only", "exit only", 0.5),
            ("enter only", "exit only", 0.5),
            ("only exit", "exit only", 1.0),
            ("a b c d", "x", 4.0),
            ("", "exit only", 1.0),
            ("a b", "", 2.0),
            ("", "", 0.0),
        ] {
            assert_eq!(word_error_rate(answer, reference), expected, "{answer} / {reference}");
        }
    }
}
