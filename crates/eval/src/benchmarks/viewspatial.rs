//! ViewSpatial-Bench: directions and orientations from the camera's and a person's perspective.

use std::sync::LazyLock;

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};
use serde_json::Value;

use super::{easi, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::pattern::{Pattern, letter, pattern};
use crate::extract::python::strip;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;
use crate::published::{PublishedTable, measured};

/// ViewSpatial-Bench's five types of questions; overall is the mean over questions.
pub(super) static VIEWSPATIAL: Benchmark = Benchmark {
    name: "viewspatial",
    title: "ViewSpatial-Bench: directions from the camera's and a person's perspective, mean over questions",
    categories: Categories::listed(&CATEGORIES),
    detection: Detection::None,
    size: Some(5712),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro(
        "official",
        "ViewSpatial-Bench's own code, and lmms-eval with `--prompt lmms`",
        official,
    ),
    other_scorers: &[Scorer::micro("easi", easi::COMPARABLE, easi::matched)],
    layout: Some(&Layout {
        source: "lidingm/ViewSpatial-Bench",
        files: &[
            "ViewSpatial-Bench.json",
            "ViewSpatial-Bench/ViewSpatial-Bench.json",
            "data/test-*.parquet",
        ],
        columns: &["choices", "question_type"],
        prompts: &["official", "lmms", "easi", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: Some(&PublishedTable {
        source: "ViewSpatial-Bench's paper, and EASI's verification of its scores",
        caveat: "others reproduce these scores to about four points only",
        categories: &[],
        rows: &[
            measured("Qwen2.5-VL-3B", "paper", 35.9),
            measured("Qwen2.5-VL-3B", "VLMEvalKit", 32.0),
            measured("Qwen2.5-VL-3B", "lmms-eval", 32.2),
        ],
    }),
};

const CATEGORIES: [&str; 5] = [
    "Camera perspective - Relative Direction",
    "Camera perspective - Object View Orientation",
    "Person perspective - Object View Orientation",
    "Person perspective - Relative Direction",
    "Person perspective - Scene Simulation Relative Direction",
];

/// A record of the official file (`image_path`) or of lmms-eval's copy (`images`).
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let text = annotation.text("question")?;
    let choices = match annotation.value("choices") {
        Some(Value::Array(_)) => annotation.texts("choices")?.join("\n"),
        _ => annotation.text("choices")?.to_owned(),
    };
    const END: &str = "Reply only to the corresponding option.\nAnswer:";
    let text = match prompt {
        EMBODIED_R_PROMPT => format!("Question: {text}\n\nChoices:\n{}", choices.trim()),
        "official" => format!("{text}{choices}\n{END}"),
        _ => format!("Question: {text}\nChoices: {choices}\n{END}"),
    };
    let images = match annotation.value("image_path") {
        Some(_) => annotation.images("image_path"),
        None => annotation.images("images"),
    };
    Ok(AnnotatedQuestion {
        category: annotation.text("question_type")?.to_owned(),
        content: reader::images_first(images, text),
        answer: annotation.text("answer")?.to_owned(),
        ..reader::question(annotation, &["id"])
    })
}

/// The first word letter from A to D of either case in the last line, of the whole output; the solution is read alike.
fn official(prediction: &Prediction) -> Result<Scored> {
    let last = |text: &str| strip(text).rsplit('\n').next().and_then(extracted);
    let found = prediction.output.answer().and_then(last);
    Ok(Scored::letter(found, extracted(&prediction.solution)))
}

fn extracted(text: &str) -> Option<char> {
    static LETTER: Pattern = LazyLock::new(|| pattern("(?i)‹([a-d])›"));
    letter(&LETTER, text)
}
