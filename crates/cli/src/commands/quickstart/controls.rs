//! Data for the control experiments: random answers and shuffled captions.

use std::path::Path;

use anyhow::Context;
use embodied_r_data::prompts::question_part;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::write::write_atomic;
use embodied_r_grpo::random::{permutation, stream};

/// Copies the questions, each with an answer drawn at random from its choices.
pub(super) fn with_random_answers(from: &Path, to: &Path, seed: u64) -> anyhow::Result<()> {
    let mut questions = read_questions(from)?;
    for (index, question) in questions.iter_mut().enumerate() {
        let choices = letters(&question.question);
        let drawn = permutation(choices.len(), stream(&[seed, index as u64]));
        let letter = drawn.first().and_then(|i| choices.get(*i));
        let missing = || format!("question {} has no choices", question.id());
        question.answer = letter.with_context(missing)?.to_string();
    }
    write(to, &questions)
}

/// Copies the questions, each with the captions of a question about another scene.
pub(super) fn with_other_captions(from: &Path, to: &Path, seed: u64) -> anyhow::Result<()> {
    let questions = read_questions(from)?;
    let order = permutation(questions.len(), stream(&[seed]));
    let mut shuffled = questions.clone();
    for (position, &index) in order.iter().enumerate() {
        let own = &questions[index];
        let other = (1..order.len())
            .map(|step| &questions[order[(position + step) % order.len()]])
            .find(|other| other.scene_name != own.scene_name)
            .context("the captions can only be shuffled over two scenes or more")?;
        let captions =
            &other.question[..other.question.len() - question_part(&other.question).len()];
        shuffled[index].question = format!("{captions}{}", question_part(&own.question));
    }
    write(to, &shuffled)
}

/// The letters of the choices, at the starts of lines.
fn letters(prompt: &str) -> Vec<char> {
    let choice = |line: &str| {
        let (letter, _) = line.split_once(". ")?;
        let mut chars = letter.chars();
        chars.next().filter(|c| c.is_ascii_uppercase() && chars.next().is_none())
    };
    question_part(prompt).lines().filter_map(choice).collect()
}

fn write(path: &Path, questions: &[Question]) -> anyhow::Result<()> {
    Ok(write_atomic(path, &serde_json::to_vec(questions)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions() -> Vec<Question> {
        let of = |i: usize| {
            serde_json::json!({
                "Question_id": i,
                "scene_name": format!("room{}", i / 2),
                "question": format!("captions {}\n>\nQuestion: q{i}?\n\nChoices:\nA. x\nB. y", i / 2),
                "answer": "A",
            })
        };
        serde_json::from_value((0..6).map(of).collect()).unwrap()
    }

    fn copied(by: impl Fn(&Path, &Path) -> anyhow::Result<()>) -> Vec<Question> {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from.json"), dir.path().join("to.json"));
        write(&from, &questions()).unwrap();
        by(&from, &to).unwrap();
        read_questions(&to).unwrap()
    }

    #[test]
    fn shuffled_captions_are_of_another_scene_and_the_question_is_unchanged() {
        let shuffled = copied(|from, to| with_other_captions(from, to, 3));
        for (new, old) in shuffled.iter().zip(questions()) {
            assert_eq!(question_part(&new.question), question_part(&old.question));
            assert_ne!(new.question.lines().next(), old.question.lines().next());
            assert_eq!(new.answer, old.answer);
        }
    }

    #[test]
    fn random_answers_are_letters_of_the_choices() {
        let drawn: Vec<String> = (0..20)
            .flat_map(|seed| copied(|from, to| with_random_answers(from, to, seed)))
            .map(|question| question.answer)
            .collect();
        let a = drawn.iter().filter(|letter| *letter == "A").count();
        assert!(drawn.iter().all(|letter| letter == "A" || letter == "B"));
        // 120 fair draws: five standard deviations.
        assert!(a.abs_diff(60) < 28, "{a} of 120");
    }
}
