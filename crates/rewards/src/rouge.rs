//! ROUGE: the overlap of two texts (C.-Y. Lin, 2004), as the Python package `rouge_score` computes it with its stemmer.

mod porter;

use std::collections::HashMap;

/// The F-measures of two texts, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rouge {
    /// Of single words.
    pub rouge1: f64,
    /// Of pairs of words.
    pub rouge2: f64,
    /// Of the longest common subsequence of words.
    pub rouge_l: f64,
}

impl Rouge {
    /// Compares `answer` with `reference`. Words are runs of ASCII letters and digits in lower case, those of more than
    /// three characters stemmed.
    pub fn of(answer: &str, reference: &str) -> Self {
        let (answer, reference) = (words(answer), words(reference));
        let n_grams = |size| {
            let (found, expected) = (counts(&answer, size), counts(&reference, size));
            let common = expected
                .iter()
                .map(|(n_gram, &count)| count.min(found.get(n_gram).copied().unwrap_or(0)))
                .sum();
            f_measure(common, found.values().sum(), expected.values().sum())
        };
        let common = longest_common_subsequence(&answer, &reference);
        Self {
            rouge1: n_grams(1),
            rouge2: n_grams(2),
            rouge_l: f_measure(common, answer.len(), reference.len()),
        }
    }

    /// The mean of the three.
    pub fn mean(&self) -> f64 {
        (self.rouge1 + self.rouge2 + self.rouge_l) / 3.0
    }
}

fn words(text: &str) -> Vec<String> {
    /// Shorter words are not stemmed.
    const MIN_STEMMED: usize = 4;
    let lower = text.to_lowercase();
    lower
        .split(|char: char| !char.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| if word.len() < MIN_STEMMED { word.to_owned() } else { porter::stem(word) })
        .collect()
}

fn counts(words: &[String], size: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for n_gram in words.windows(size) {
        *counts.entry(n_gram).or_default() += 1;
    }
    counts
}

fn f_measure(common: usize, found: usize, expected: usize) -> f64 {
    let precision = common as f64 / found.max(1) as f64;
    let recall = common as f64 / expected.max(1) as f64;
    match precision + recall > 0.0 {
        true => 2.0 * precision * recall / (precision + recall),
        false => 0.0,
    }
}

fn longest_common_subsequence(first: &[String], second: &[String]) -> usize {
    // The lengths for each start of `second` and the words of `first` so far.
    let mut lengths = vec![0; second.len() + 1];
    for word in first {
        let mut diagonal = 0;
        for (index, other) in second.iter().enumerate() {
            let above = lengths[index + 1];
            lengths[index + 1] =
                if word == other { diagonal + 1 } else { above.max(lengths[index]) };
            diagonal = above;
        }
    }
    lengths[second.len()]
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        answer: String,
        reference: String,
        rouge1: f64,
        rouge2: f64,
        rouge_l: f64,
    }

    #[test]
    fn the_scores_are_those_of_rouge_score() {
        let text = include_str!("../tests/fixtures/rouge.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let found = Rouge::of(&case.answer, &case.reference);
            for (found, expected) in [
                (found.rouge1, case.rouge1),
                (found.rouge2, case.rouge2),
                (found.rouge_l, case.rouge_l),
            ] {
                let place = format!("{} / {}", case.answer, case.reference);
                assert!((found - expected).abs() < 1e-12, "{place}: {found} not {expected}");
            }
        }
    }

    #[test]
    fn the_mean_is_that_of_all_three() {
        let rouge = Rouge { rouge1: 0.9, rouge2: 0.3, rouge_l: 0.6 };
        assert!((rouge.mean() - 0.6).abs() < 1e-12);
    }

    #[test]
    fn stems_are_those_of_nltk() {
        let text = include_str!("../tests/fixtures/stems.json");
        let stems: Vec<(String, String)> = serde_json::from_str(text).unwrap();
        assert!(stems.len() > 500);
        for (word, stem) in stems {
            assert_eq!(porter::stem(&word), stem, "{word}");
        }
    }
}
