//! SAT: dynamic spatial aptitude from one or two images.

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};

use super::reader;
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::pattern::is_word;
use crate::extract::python::{is_space, strip};
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;

/// SAT's test questions by type; overall is the mean over questions.
pub(super) static SAT: Benchmark = Benchmark {
    name: "sat",
    title: "SAT: dynamic spatial aptitude, mean over questions",
    categories: Categories::Any,
    detection: Detection::None,
    size: None,
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro("official", "lmms-eval", official),
    other_scorers: &[],
    layout: Some(&Layout {
        source: "nv-njb/SAT",
        files: &["data/test-*.parquet", "SAT_test.parquet", "test*.parquet"],
        columns: &["image_bytes", "answers", "correct_answer_idx"],
        prompts: &["official", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: None,
};

/// What the prompt says about the camera's movement.
const CAMERA: &str = "When multiple images are provided, You want to realize that when camera moves left, the objects in the \
image move right, and vice versa. And when you are asked about the movement of the same object captured in different images, \
you can compare the position of the object relative to other objects in the image to answer the question.";

/// A record, whose answer is the index of an option.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let (text, options) = (annotation.text("question")?.trim(), annotation.texts("answers")?);
    let message = match prompt {
        EMBODIED_R_PROMPT => reader::own_text(text, &options),
        _ => format!(
            "{text}\n{CAMERA}\n\n{}\n\nOnly output the letter of the correct option and nothing else.",
            reader::lettered(&options, ". ").join("\n")
        ),
    };
    Ok(AnnotatedQuestion {
        category: match annotation.value("question_type") {
            Some(_) => annotation.text("question_type")?.to_owned(),
            None => String::new(),
        },
        content: reader::images_first(annotation.images("image_bytes"), message),
        answer: reader::answer_at(annotation, "correct_answer_idx", options.len())?,
        ..reader::question(annotation, &["id", "question_id"])
    })
}

/// The first word by single spaces, of the output without marks, compared without case and ASCII punctuation.
fn official(prediction: &Prediction) -> Result<Scored> {
    let word = prediction.output.answer().and_then(extracted);
    let plain = |text: &str| -> String {
        let kept = text.chars().filter(|char| !char.is_ascii_punctuation());
        kept.collect::<String>().to_lowercase()
    };
    let is_right = word.as_ref().is_some_and(|word| plain(word) == plain(&prediction.solution));
    Ok(Scored::choice(word, is_right))
}

fn extracted(answer: &str) -> Option<String> {
    let is_kept = |char: &char| is_word(*char) || is_space(*char);
    let text: String = answer.chars().filter(is_kept).collect();
    let word = strip(&text).split(' ').next().unwrap_or_default();
    (!word.is_empty()).then(|| word.to_owned())
}
