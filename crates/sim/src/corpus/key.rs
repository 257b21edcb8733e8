//! What statements are about, named somewhere between words that say nothing, as it is in a
//! question: it has to be found whatever the wording is.

use crate::rng::Rng;

/// Words that say nothing of a room. None of them stands in a caption.
const WORDS: [&str; 48] = [
    "a", "also", "an", "any", "are", "as", "asked", "at", "be", "been", "by", "could", "did", "do",
    "done", "each", "for", "from", "had", "has", "have", "here", "how", "if", "in", "is", "it",
    "location", "may", "next", "objects", "of", "on", "one", "or", "place", "reach", "that",
    "these", "this", "to", "we", "what", "when", "where", "which", "would", "you",
];

/// Most words before, between and after the parts of a key.
const MOST_WORDS: usize = 6;

/// How a text names an object.
pub(super) fn object(name: &str) -> String {
    format!("the {name}")
}

/// The parts of a key in their order, with random words around them.
pub(super) fn among_words(key: &[String], rng: &mut Rng) -> String {
    let mut words = some_words(rng);
    for part in key {
        words.push(part.clone());
        words.extend(some_words(rng));
    }
    words.join(" ")
}

fn some_words(rng: &mut Rng) -> Vec<String> {
    let count = rng.below(MOST_WORDS + 1);
    (0..count).filter_map(|_| rng.pick(&WORDS)).map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_in_its_order_at_places_that_vary() {
        let mut rng = Rng::new(&[1]);
        let key = ["rotated left 60", "at the start"].map(str::to_owned);
        let mut places = std::collections::HashSet::new();
        for _ in 0..200 {
            let text = among_words(&key, &mut rng);
            let (before, rest) = text.split_once(&key[0]).unwrap();
            assert!(rest.contains(&key[1]), "{text}");
            places.insert(before.split_whitespace().count());
        }
        assert_eq!(places.len(), MOST_WORDS + 1);
    }

    #[test]
    fn the_words_are_in_no_caption() {
        use crate::captions::captions_at;
        use crate::world::{draw, keyframes_by_pose};
        for seed in 0..50 {
            let scene = draw(&[seed]);
            for caption in captions_at(&scene, &keyframes_by_pose(&scene)) {
                let told = format!("{} {}", caption.view, caption.action.unwrap_or_default());
                let mut told = told.split([' ', ',', ';']);
                assert!(told.all(|word| !WORDS.contains(&word)));
            }
        }
    }
}
