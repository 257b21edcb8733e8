//! The option letter as VLMEvalKit's `can_infer` reads it, which EASI uses for BLINK and 3DSRBench
//! (`utils/matching_util.py`). It knows the question's options.

/// Replies that give no answer and are wrong.
const REFUSALS: [&str; 4] = [
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
];

/// A reply of the harness itself in place of the model's.
const FAILED: &str = "Failed to obtain answer via API";

/// The mark of a reply that is wrong.
const WRONG: char = 'Z';

/// A letter counts if its first place is among so many last words.
const LAST_WORDS: usize = 4;

/// The option of `answer`, by its letter or else by its text; Z for a refusal.
pub(crate) fn infer_option(answer: &str, options: &[(char, String)]) -> Option<char> {
    by_letter(answer, options).or_else(|| by_text(answer, options))
}

fn by_letter(answer: &str, options: &[(char, String)]) -> Option<char> {
    if answer.contains(FAILED) {
        return None;
    }
    if REFUSALS.iter().any(|refusal| answer.contains(refusal)) {
        return Some(WRONG);
    }
    let spaced = answer.replace(|char| ".()[],:;!*#{}".contains(char), " ");
    let words: Vec<&str> =
        spaced.split(super::python::is_space).filter(|it| !it.is_empty()).collect();
    let place = |letter: char| words.iter().position(|word| word.chars().eq([letter]));
    let found: Vec<(char, usize)> =
        options.iter().filter_map(|(letter, _)| Some((*letter, place(*letter)?))).collect();
    match found[..] {
        [(letter, place)] if place + LAST_WORDS >= words.len() => Some(letter),
        [] => place(WRONG).map(|_| WRONG),
        _ => None,
    }
}

fn by_text(answer: &str, options: &[(char, String)]) -> Option<char> {
    let length = |text: &str| text.chars().count();
    let answer = answer.to_lowercase();
    if length(&answer) > 2 * options.iter().map(|(_, text)| length(text)).sum::<usize>() {
        return None;
    }
    let mut found = options.iter().filter(|(_, text)| answer.contains(&text.to_lowercase()));
    let (letter, _) = found.next()?;
    found.next().is_none().then_some(*letter)
}
