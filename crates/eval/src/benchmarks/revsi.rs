//! ReVSI: VSI-Bench's tasks with questions and answers annotated anew.

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};

use super::{reader, vsi_bench};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
    wrong_solution,
};
use crate::error::Result;
use crate::extract::python::float;
use crate::extract::reasoning::without_reasoning;
use crate::fuzzy;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;

/// ReVSI's seven scores, each the mean of its parts; overall is their mean.
pub(super) static REVSI: Benchmark = Benchmark {
    name: "revsi",
    title: "ReVSI: VSI-Bench's tasks annotated anew, mean over seven scores",
    categories: Categories::Listed { names: &CATEGORIES, levels: &PARTS },
    detection: Detection::None,
    size: None,
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::macro_("official", "lmms-eval's task of the same number of frames", official),
    other_scorers: &[],
    layout: Some(&Layout {
        source: "3dlg-hcvc/ReVSI",
        files: &["32_frame/*.parquet", "32_frame*.parquet", "*/test-*.parquet", "*.parquet"],
        columns: &["scene_id", "num_frames", "question_type"],
        prompts: &["official", EMBODIED_R_PROMPT],
        frames: &["linspace=32", "fps=2", "key"],
        question,
    }),
    published: None,
};

const CATEGORIES: [&str; 7] = [
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    "object_rel_direction",
    "route_planning",
];

const PARTS: [(&str, &str); 10] = [
    ("object_counting_single", "object_counting"),
    ("object_counting_multiple", "object_counting"),
    ("room_size_estimation_single", "room_size_estimation"),
    ("room_size_estimation_multiple", "room_size_estimation"),
    ("object_rel_distance_closest", "object_rel_distance"),
    ("object_rel_distance_farthest", "object_rel_distance"),
    ("object_rel_direction_forward_easy", "object_rel_direction"),
    ("object_rel_direction_backward_easy", "object_rel_direction"),
    ("object_rel_direction_forward_hard", "object_rel_direction"),
    ("object_rel_direction_backward_hard", "object_rel_direction"),
];

/// The first four categories are numeric.
fn is_numeric(category: &str) -> bool {
    CATEGORIES[..4].iter().any(|name| category.starts_with(name))
}

/// A record; its video is that of its number of frames.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let (text, category) = (annotation.text("question")?, annotation.text("question_type")?);
    let options = match is_numeric(category) {
        true => Vec::new(),
        false => annotation.texts("options")?,
    };
    let message = match (prompt, is_numeric(category)) {
        (EMBODIED_R_PROMPT, _) => reader::own_text(text, &options),
        (_, true) => format!(
            "These are frames of a video.\n{text}\nAnswer the question using a single integer or decimal number."
        ),
        (_, false) => format!(
            "These are frames of a video.\n{text}\nOptions:\n{}\nAnswer with the option's letter from the given choices \
             directly.",
            options.join("\n")
        ),
    };
    let (frames, scene) = (annotation.scalar("num_frames")?, annotation.scalar("scene_id")?);
    Ok(AnnotatedQuestion {
        category: category.to_owned(),
        content: reader::video_first(message),
        answer: annotation.scalar("ground_truth")?,
        video: Some(format!("{frames}_frame/{scene}.mp4")),
        ..reader::question(annotation, &["id", "question_id"])
    })
}

/// The first word, as by VSI-Bench's official scorer. Reasoning is removed.
fn official(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(without_reasoning);
    let answer = answer.as_deref();
    if !is_numeric(&prediction.category) {
        return Ok(vsi_bench::choice(answer, &prediction.solution));
    }
    match float(&prediction.solution).filter(|target| target.is_finite()) {
        Some(target) => Ok(vsi_bench::number(answer.and_then(fuzzy::number), target)),
        None => Err(wrong_solution(prediction, "a number")),
    }
}
