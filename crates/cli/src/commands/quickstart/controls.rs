//! Data for the control experiments: random answers, shuffled captions, accepted samples.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::Path;

use anyhow::Context;
use embodied_r_data::prompts::question_part;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::system_prompt::{Given, SystemPromptPreset};
use embodied_r_eval::samples;
use embodied_r_files::{write_atomic, write_lines};
use embodied_r_random::{permutation, stream};
use embodied_r_sim::views::IMAGE;
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

use super::row::Judged;

/// Most accepted samples of a question, as in Yuan et al. 2023 (arXiv 2308.01825): further ones add little.
const ACCEPTED_PER_QUESTION: usize = 4;

/// The field of a question with its images.
const IMAGES: &str = "images";

/// The field of a question with the texts of its options, if they are not in its prompt as lettered lines.
const OPTIONS: &str = "options";

/// The file of a grey image.
const GREY: &str = "grey.png";

/// Copies the questions, each with an answer drawn at random from its choices.
pub(super) fn with_random_answers(from: &Path, to: &Path, seed: u64) -> anyhow::Result<()> {
    let mut questions = read_questions(from)?;
    for (index, question) in questions.iter_mut().enumerate() {
        let choices = letters(question);
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

/// Copies the questions, each with a grey image in place of every image. It is written beside them and has the size of
/// the first image; both files are in the same folder.
pub(super) fn with_grey_images(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut questions = read_questions(from)?;
    let first = questions.iter().find_map(|question| images(question).first()?.as_str());
    let first = first.with_context(|| format!("no question in `{}` has images", from.display()))?;
    let path = from.with_file_name(first);
    let (width, height) = image::image_dimensions(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut png = Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, Rgb([128; 3])).write_to(&mut png, ImageFormat::Png)?;
    write_atomic(&to.with_file_name(GREY), png.get_ref())?;
    for question in &mut questions {
        let grey = vec![GREY; images(question).len()];
        question.extra.insert(IMAGES.to_owned(), json!(grey));
    }
    write(to, &questions)
}

/// The images of a question.
fn images(question: &Question) -> &[Value] {
    question.extra.get(IMAGES).and_then(Value::as_array).map_or(&[], Vec::as_slice)
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
    let settings = settings(run)?;
    let per_step = settings.get("generation_batch_size").and_then(toml::Value::as_integer);
    let per_step = per_step.context("the run's settings have no `generation_batch_size`")?;
    let is_step = |line: &&str| line.contains(r#""event":"step""#);
    let steps = read(&run.join("events.jsonl"))?.lines().filter(is_step).count();
    let questions = read_questions(questions)?.len().max(1);
    Ok((steps * usize::try_from(per_step)?).div_ceil(questions).max(1))
}

/// The settings of a training run.
pub(super) fn settings(run: &Path) -> anyhow::Result<toml::Table> {
    Ok(toml::from_str(&read(&run.join("settings.toml"))?)?)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// Writes the correct, well-formed and distinct samples as SFT conversations; returns their number.
pub(super) fn accept(sampled: &Path, to: &Path) -> anyhow::Result<usize> {
    let mut accepted = Vec::new();
    for question in samples::read(sampled)? {
        let mut seen = HashSet::new();
        for reply in &question.samples {
            let judged = Judged::new(&question.question, &question.solution, reply)?;
            if !judged.is_right() || seen.len() == ACCEPTED_PER_QUESTION || !seen.insert(reply) {
                continue;
            }
            accepted.push(json!({"messages": [
                {"role": "system", "content": SystemPromptPreset::Bearings.text(Given::Bearings)},
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
    Ok(read(path)?.lines().count())
}

/// The accuracy of guessing among the choices, per cent.
pub(super) fn blind_guess(questions: &Path) -> anyhow::Result<f64> {
    let questions = read_questions(questions)?;
    let chances = questions.iter().map(|q| 1.0 / letters(q).len().max(1) as f64);
    Ok(100.0 * chances.sum::<f64>() / questions.len().max(1) as f64)
}

/// The letters of the choices: of the listed options, or at the starts of lines of the prompt.
fn letters(question: &Question) -> Vec<char> {
    if let Some(options) = question.extra.get(OPTIONS).and_then(Value::as_array) {
        return ('A'..='Z').take(options.len()).collect();
    }
    let choice = |line: &str| {
        let (letter, _) = line.split_once(". ")?;
        let mut chars = letter.chars();
        chars.next().filter(|c| c.is_ascii_uppercase() && chars.next().is_none())
    };
    question_part(&question.question).lines().filter_map(choice).collect()
}

pub(super) fn write(path: &Path, questions: &[Question]) -> anyhow::Result<()> {
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

    #[test]
    fn options_of_a_question_have_letters_from_a() {
        let mut question = questions().remove(0);
        question.extra.insert(OPTIONS.to_owned(), json!(["w", "x", "y", "z"]));
        assert_eq!(letters(&question), ['A', 'B', 'C', 'D']);
    }

    #[test]
    fn a_grey_image_has_the_size_of_the_images_that_it_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        RgbImage::new(6, 4).save(path("own.png")).unwrap();
        let mut questions = questions();
        for question in &mut questions {
            question.extra.insert(IMAGES.to_owned(), json!(["own.png"]));
        }
        write(&path("from.json"), &questions).unwrap();
        with_grey_images(&path("from.json"), &path("to.json")).unwrap();
        let copied = read_questions(&path("to.json")).unwrap();
        assert!(copied.iter().all(|question| question.extra[IMAGES] == json!([GREY])));
        let grey = image::open(path(GREY)).unwrap().to_rgb8();
        assert_eq!(grey.dimensions(), (6, 4));
        assert!(grey.pixels().all(|pixel| pixel.0 == [128; 3]));
    }
}
