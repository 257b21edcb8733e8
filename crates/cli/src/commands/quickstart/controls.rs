//! Data for the control experiments: random answers, shuffled captions, accepted samples.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Context;
use embodied_r_data::prompts::{question_part, system_prompt};
use embodied_r_data::question::{Question, read_questions};
use embodied_r_eval::samples;
use embodied_r_files::{write_atomic, write_lines};
use embodied_r_random::{permutation, stream};
use embodied_r_sim::views::{IMAGE, VIEW_SIZE, write_png};
use serde_json::json;

use super::row::Judged;

/// Most accepted samples of a question, as in Yuan et al. 2023 (arXiv 2308.01825): further ones add little.
const ACCEPTED_PER_QUESTION: usize = 4;

/// The field of a question with its images.
const IMAGES: &str = "images";

/// The file of a grey frame.
const GREY: &str = "grey.png";

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

/// Copies the questions, each with the frames of another room.
pub(super) fn with_other_frames(from: &Path, to: &Path, seed: u64) -> anyhow::Result<()> {
    let questions = read_questions(from)?;
    let order = permutation(questions.len(), stream(&[seed]));
    let mut shuffled = questions.clone();
    for (position, &index) in order.iter().enumerate() {
        let other = &questions[order[(position + 1) % order.len()]];
        let images = other.extra.get(IMAGES).cloned();
        shuffled[index].extra.insert(IMAGES.to_owned(), images.unwrap_or_default());
    }
    write(to, &shuffled)
}

/// Copies the questions, each with a grey image in place of every frame; the image is written beside them.
pub(super) fn with_grey_frames(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut questions = read_questions(from)?;
    let (width, height) = VIEW_SIZE;
    write_png(&to.with_file_name(GREY), &vec![128; width * height * 3])?;
    for question in &mut questions {
        let images = question.extra.get(IMAGES).and_then(|images| images.as_array());
        let grey = vec![GREY; images.map_or(0, Vec::len)];
        question.extra.insert(IMAGES.to_owned(), json!(grey));
    }
    write(to, &questions)
}

/// Copies the questions without their images.
pub(super) fn without_images(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut questions = read_questions(from)?;
    for question in &mut questions {
        question.extra.shift_remove(IMAGES);
        question.question = question.question.replace(IMAGE, "");
    }
    write(to, &questions)
}

/// The samples per question with which as many completions are drawn as in the GRPO run in `run`.
pub(super) fn samples_per_question(run: &Path, questions: &Path) -> anyhow::Result<usize> {
    let read = |name: &str| {
        let path = run.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let settings: toml::Table = toml::from_str(&read("settings.toml")?)?;
    let per_step = settings.get("generation_batch_size").and_then(toml::Value::as_integer);
    let per_step = per_step.context("the run's settings have no `generation_batch_size`")?;
    let is_step = |line: &&str| line.contains(r#""event":"step""#);
    let steps = read("events.jsonl")?.lines().filter(is_step).count();
    let questions = read_questions(questions)?.len().max(1);
    Ok((steps * usize::try_from(per_step)?).div_ceil(questions).max(1))
}

/// Writes the correct, well-formed and distinct samples as SFT conversations; returns their number.
pub(super) fn accept(sampled: &Path, to: &Path) -> anyhow::Result<usize> {
    let mut accepted = Vec::new();
    for question in samples::read(sampled)? {
        let mut seen = HashSet::new();
        for reply in &question.samples {
            let judged = Judged::new(&question.question, &question.solution, reply)?;
            let right = judged.correct == 1.0 && judged.parsable;
            if !right || seen.len() == ACCEPTED_PER_QUESTION || !seen.insert(reply) {
                continue;
            }
            accepted.push(json!({"messages": [
                {"role": "system", "content": system_prompt()},
                {"role": "user", "content": question.question},
                {"role": "assistant", "content": reply},
            ]}));
        }
    }
    write_lines(to, &accepted)?;
    Ok(accepted.len())
}

/// The number of lines of a file.
pub(super) fn lines(path: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(path);
    Ok(text.with_context(|| format!("cannot read `{}`", path.display()))?.lines().count())
}

/// The accuracy of guessing among the choices, per cent.
pub(super) fn blind_guess(questions: &Path) -> anyhow::Result<f64> {
    let questions = read_questions(questions)?;
    let chances = questions.iter().map(|q| 1.0 / letters(&q.question).len().max(1) as f64);
    Ok(100.0 * chances.sum::<f64>() / questions.len().max(1) as f64)
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
