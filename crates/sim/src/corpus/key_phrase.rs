//! Key phrases: the subject of statements between filler words, as in a question, so that the model
//! learns to find it in any wording.

use crate::rng::Rng;

/// Filler words, none of which occurs in captions.
const FILLER_WORDS: [&str; 48] = [
    "a", "also", "an", "any", "are", "as", "asked", "at", "be", "been", "by", "could", "did", "do",
    "done", "each", "for", "from", "had", "has", "have", "here", "how", "if", "in", "is", "it",
    "location", "may", "next", "objects", "of", "on", "one", "or", "place", "reach", "that",
    "these", "this", "to", "we", "what", "when", "where", "which", "would", "you",
];

/// Maximum number of filler words before, between and after the parts of a key.
const MAX_FILLER_WORDS: usize = 6;

/// The noun phrase of an object.
pub(super) fn object(name: &str) -> String {
    format!("the {name}")
}

/// The parts of a key in order, with random filler words around them.
pub(super) fn among_filler_words(key: &[String], rng: &mut Rng) -> String {
    let mut words = filler_words(rng);
    for part in key {
        words.push(part.clone());
        words.extend(filler_words(rng));
    }
    words.join(" ")
}

fn filler_words(rng: &mut Rng) -> Vec<String> {
    let count = rng.below(MAX_FILLER_WORDS + 1);
    (0..count).filter_map(|_| rng.pick(&FILLER_WORDS)).map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_order_at_varying_positions() {
        let mut rng = Rng::new(&[1]);
        let key = ["rotated left 60", "at the start"].map(str::to_owned);
        let mut positions = std::collections::HashSet::new();
        for _ in 0..200 {
            let text = among_filler_words(&key, &mut rng);
            let (before, rest) = text.split_once(&key[0]).unwrap();
            assert!(rest.contains(&key[1]), "{text}");
            positions.insert(before.split_whitespace().count());
        }
        assert_eq!(positions.len(), MAX_FILLER_WORDS + 1);
    }

    #[test]
    fn no_filler_word_occurs_in_captions() {
        use crate::captions::captions_at;
        use crate::world::{draw, keyframes_by_pose};
        for seed in 0..50 {
            let scene = draw(&[seed]);
            for caption in captions_at(&scene, &keyframes_by_pose(&scene)) {
                let words = format!("{} {}", caption.view, caption.action.unwrap_or_default());
                let mut words = words.split([' ', ',', ';']);
                assert!(words.all(|word| !FILLER_WORDS.contains(&word)));
            }
        }
    }
}
