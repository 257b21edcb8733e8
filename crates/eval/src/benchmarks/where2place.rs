//! Where2Place: points in free space that a sentence describes.

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};

use super::{pointing, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scorer,
};
use crate::own_prompt::EMBODIED_R_PROMPT;

/// Where2Place; overall is the mean share of points inside the region.
pub(super) static WHERE2PLACE: Benchmark = Benchmark {
    name: "where2place",
    title: "Where2Place: points in free space, mean share of points inside the region",
    categories: Categories::Any,
    detection: Detection::None,
    size: Some(100),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro("official", "lmms-eval's task `where2place`", pointing::official),
    other_scorers: &[Scorer::micro("json", "lmms-eval's task `where2place_json`", pointing::json)],
    layout: Some(&Layout {
        source: "FlagEval/Where2Place",
        files: &["data/test-*.parquet", "test-*.parquet", "*.parquet"],
        columns: &["question_id", "question", "image", "mask"],
        prompts: &["official", "json", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: None,
};

/// How tuples are asked for.
pub(super) const TUPLES: &str = "Your answer should be formatted as a list of tuples, i.e. [(x1, y1), (x2, y2), ...], where each tuple contains \
the x and y coordinates of a point satisfying the conditions above. The coordinates should be between 0 and 1, \
indicating the normalized pixel locations of the points in the image.";

fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let text = annotation.text("question")?;
    let message = match prompt {
        EMBODIED_R_PROMPT => format!("Question: {} {TUPLES}", text.trim()),
        "json" => format!(
            "{text} Your answer should be JSON format. The coordinates should be between 0 and 1000, indicating the \
             normalized pixel locations of the points in the image."
        ),
        _ => format!("{text} {TUPLES} Return only list of tuples, don't add anything else."),
    };
    Ok(AnnotatedQuestion {
        content: reader::images_first(annotation.images("image"), message),
        answer: pointing::MASK.to_owned(),
        columns: [pointing::required_mask(annotation)?].into_iter().collect(),
        ..reader::question(annotation, &["question_id"])
    })
}
