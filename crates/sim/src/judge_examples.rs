//! Examples of the consistency judge's task: read a conclusion, find its letter.
//!
//! The reasoning is plain sentences about a random option, so that the judge follows what it reads, right or wrong. It
//! has nothing of the solver's text.

use embodied_r_data::prompts::{judge_system_prompt, judge_user_prompt};
use embodied_r_random::Rng;

use crate::question_template::{Category, letter};
use crate::questions::text_question;

/// Reasoning that ends in an option, in place of `_`.
const SENTENCES: [&str; 12] = [
    "All in all it is _.",
    "The video shows it: _.",
    "I looked at each frame. It must be _.",
    "We can see this at once. So it is _.",
    "The others are not possible, so _.",
    "That leaves _.",
    "The answer is clear from what we see now. It is _.",
    "First I was not sure. In the end it is _.",
    "This is the one: _.",
    "Of these choices only one is right, so _.",
    "It is not the one that we would think at first. It is _.",
    "so _.",
];

/// An example of the consistency judge's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeExample {
    /// The system prompt.
    pub system: String,
    /// The question and the reasoning.
    pub user: String,
    /// The option that the reasoning concludes.
    pub letter: char,
}

/// Example `index` of `seed`, about a question of one of `categories` and a random option of it. `None` without
/// categories.
pub fn judge_example(seed: u64, index: u64, categories: &[Category]) -> Option<JudgeExample> {
    let question = text_question(seed, index, categories)?.question;
    let mut rng = Rng::new(&[seed, index, 9]);
    let chosen = rng.below(question.options.len());
    let reasoning = sentence(question.options.get(chosen)?, &mut rng);
    Some(JudgeExample {
        system: judge_system_prompt().to_owned(),
        user: judge_user_prompt(&question.text, &reasoning),
        letter: letter(chosen),
    })
}

/// A random plain sentence that concludes `content`, as in the judge's examples.
pub fn sentence(content: &str, rng: &mut Rng) -> String {
    rng.pick(&SENTENCES).copied().unwrap_or("_.").replace('_', content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_judge_follows_any_option_in_words_that_are_not_the_solvers() {
        let mut right = 0;
        for index in 0..100 {
            let example = judge_example(2, index, &[Category::LandmarkPosition]).unwrap();
            let found = text_question(2, index, &[Category::LandmarkPosition]).unwrap();
            right += usize::from(example.letter == found.question.answer);
            let listed = format!("{}. ", example.letter);
            let content = example.user.lines().find_map(|line| line.strip_prefix(&listed)).unwrap();
            let (_, reasoning) = example.user.split_once("\nReasoning: ").unwrap();
            assert!(reasoning.starts_with(|c: char| c.is_alphabetic()));
            assert!(reasoning.contains(&format!(" {content}.\n")), "{}", example.user);
            for word in ["first ", "last ", "faced ", "frame ", "Observe"] {
                assert!(!reasoning.contains(word), "{reasoning}");
            }
        }
        assert!((10..40).contains(&right), "{right}");
    }
}
