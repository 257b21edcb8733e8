//! Key phrases: the subject of statements between filler words, so that the model learns to find it in any wording.

use embodied_r_random::Rng;

/// Filler words, none of which occurs in captions.
const FILLER_WORDS: [&str; 48] = [
    "a", "also", "an", "any", "are", "as", "asked", "at", "be", "been", "by", "could", "did", "do",
    "done", "each", "for", "from", "had", "has", "have", "here", "how", "if", "in", "is", "it",
    "location", "may", "next", "objects", "of", "on", "one", "or", "place", "reach", "that",
    "these", "this", "to", "we", "what", "when", "where", "which", "would", "you",
];

/// Maximum number of filler words before and after a key.
const MAX_FILLER_WORDS: usize = 6;

/// The noun phrase of an object, or a list of objects.
pub(super) fn objects(names: &[String], rng: &mut Rng) -> String {
    let article = if names.len() == 1 || rng.chance(0.5) { "the " } else { "" };
    names.iter().map(|name| format!("{article}{name}")).collect::<Vec<_>>().join(", ")
}

/// A key with random filler words around it.
pub(crate) fn among_filler_words(key: &str, rng: &mut Rng) -> String {
    let mut words = filler_words(rng);
    words.push(key.to_owned());
    words.extend(filler_words(rng));
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
    fn a_key_is_at_varying_positions() {
        let mut rng = Rng::new(&[1]);
        let mut positions = std::collections::HashSet::new();
        for _ in 0..200 {
            let text = among_filler_words("the lamp", &mut rng);
            let (before, _) = text.split_once("the lamp").unwrap();
            positions.insert(before.split_whitespace().count());
        }
        assert_eq!(positions.len(), MAX_FILLER_WORDS + 1);
    }

    #[test]
    fn no_filler_word_occurs_in_captions() {
        use embodied_r_sim::{captions_at, keyframes_by_pose, random_room};
        for seed in 0..50 {
            let scene = random_room(&[seed]);
            for caption in captions_at(&scene, &keyframes_by_pose(&scene)) {
                let words = format!("{} {}", caption.view, caption.action.unwrap_or_default());
                let mut words = words.split([' ', ',', ';']);
                assert!(words.all(|word| !FILLER_WORDS.contains(&word)));
            }
        }
    }
}
