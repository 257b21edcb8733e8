//! RoboSpatial-Home: yes/no questions about fit and configuration, and points in free space beside an object.

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};
use serde_json::{Value, json};

use super::{pointing, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::python::strip;
use crate::extract::reasoning;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::pointing::mask::{Inside, Mask};
use crate::pointing::points::easi::{self, Size};
use crate::pointing::points::{fenced, shown};
use crate::pointing::polygon::Polygon;
use crate::predictions::Prediction;
use crate::published::{PublishedTable, measured};

/// RoboSpatial-Home by category; overall is the mean over questions.
pub(super) static ROBOSPATIAL_HOME: Benchmark = Benchmark {
    name: "robospatial-home",
    title: "RoboSpatial-Home: fit, configuration and free space beside objects, mean over questions",
    categories: Categories::Any,
    detection: Detection::None,
    size: Some(350),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro(
        "official",
        "lmms-eval, which scores a question without a mask -1, here 0",
        official,
    ),
    other_scorers: &[Scorer::micro(
        "easi",
        "VLMEvalKit (0.0.20 with its logger restored)",
        scored_by_easi,
    )],
    layout: Some(&Layout {
        source: "chanhee-luke/RoboSpatial-Home",
        files: &["data/*-*.parquet", "*-*.parquet"],
        columns: &["category", "question", "answer", "img"],
        prompts: &["official", "easi", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: Some(&PublishedTable {
        source: "Qwen3-VL's report, and EASI's verification of its scores",
        caveat: "overall is the mean over questions",
        categories: &[],
        rows: &[
            measured("Qwen3-VL-8B", "own report", 66.9),
            measured("Qwen3-VL-8B", "VLMEvalKit", 62.0),
        ],
    }),
};

/// What the questions say about their answers; lmms-eval takes it out.
const ASKED_FORMS: [&str; 2] = [
    "Your answer should be formatted as a list of tuples, i.e. [(x1, y1), ...], where each tuple contains the x and y \
     coordinates of a point satisfying the conditions above. The coordinates should be between 0 and 1, indicating the \
     normalized pixel locations of the points.",
    "Answer yes or no.",
];

/// The category of questions whose answer is a point.
const CONTEXT: &str = "context";

fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let (text, category) = (annotation.text("question")?, annotation.text("category")?);
    let message = match (prompt, category) {
        (EMBODIED_R_PROMPT, _) => format!("Question: {}", text.trim()),
        ("easi", CONTEXT) => format!(
            "{}\n\nOutput the point coordinates in JSON format.\nFor example:\n[\n  {{\"point_2d\": [x, y], \"label\": \
             \"point_1\"}}\n]\n",
            text.split("Your answer should").next().unwrap_or_default().trim()
        ),
        ("easi", _) => text.to_owned(),
        _ => official_prompt(text, category),
    };
    let size = annotation.bytes("img").and_then(size);
    let columns = pointing::mask_column(annotation)?.into_iter();
    let columns = columns.chain(size.map(|size| ("image_size".to_owned(), size)));
    Ok(AnnotatedQuestion {
        category: category.to_owned(),
        content: reader::images_first(annotation.images("img"), message),
        answer: annotation.scalar("answer")?,
        columns: columns.collect(),
        ..reader::question(annotation, &["id"])
    })
}

fn official_prompt(text: &str, category: &str) -> String {
    let mut text = text.to_owned();
    for form in ASKED_FORMS {
        text = text.replace(form, "");
    }
    let text = strip(&text);
    match category {
        CONTEXT => format!(
            "{text}\nYour task is to identify specific points in the image based on the question. Respond with a brief \
             explanation if needed, followed by a list of 2D point coordinates.\n\n    The points should be in JSON format and \
             normalized to the range [0, 1000].\n\n    Do not include additional text after this line.\n    "
        ),
        _ => format!(
            "{text}\nYour task is to answer the question above. Respond with a brief explanation if needed, followed by a yes \
             or no answer in the last line of your response.\n\n    Format your final answer strictly as follows on the last \
             line of your response:\n    Answer: yes or no\n\n    Do not include additional text after this line.\n    "
        ),
    }
}

/// The size of an encoded image, as a column.
fn size(bytes: &[u8]) -> Option<Value> {
    let reader = image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().ok()?;
    let (width, height) = reader.into_dimensions().ok()?;
    Some(json!([width, height]))
}

/// Yes or no in the last line, or any point of the first fenced JSON list inside the mask. Reasoning is removed.
fn official(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(reasoning::without_reasoning).unwrap_or_default();
    let answer = without_reasoning(&answer);
    if let Some(is_yes) = is_yes(&prediction.solution) {
        return Ok(choice(last_line_word(answer), is_yes));
    }
    Ok(match prediction.columns.get(pointing::MASK).and_then(Mask::from_json) {
        Some(mask) => {
            let points = fenced(answer, &mask);
            Scored::choice(shown(&points), mask.any(&points, Inside::Positive))
        }
        None => Scored::choice(None, false),
    })
}

/// Yes or no at the start, or the first point inside the polygon of the solution.
fn scored_by_easi(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().unwrap_or_default();
    if let Some(is_yes) = is_yes(&prediction.solution) {
        return Ok(choice(first_word(answer), is_yes));
    }
    let side = |index: usize| {
        let side = prediction.columns.get("image_size").and_then(|size| size.get(index)?.as_u64());
        side.unwrap_or(1) as usize
    };
    let size = Size { width: side(0), height: side(1) };
    let first = easi::targets(answer, size).first().map(|target| target.first_point(size));
    let polygon = Polygon::parse(&prediction.solution);
    let is_right = first.zip(polygon).is_some_and(|((x, y), polygon)| polygon.contains(x, y));
    Ok(Scored::choice(first.map(|(x, y)| format!("({x}, {y})")), is_right))
}

/// Whether a truth in the column `answer` is yes; `None` if it is neither yes nor no.
fn is_yes(truth: &str) -> Option<bool> {
    match strip(truth).to_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// The score of yes (true) or no.
fn choice(found: Option<bool>, truth: bool) -> Scored {
    let word = found.map(|is_yes| if is_yes { "yes" } else { "no" });
    Scored::choice(word.map(str::to_owned), found == Some(truth))
}

/// Yes or no, if the last line has the letters of one of them alone.
fn last_line_word(answer: &str) -> Option<bool> {
    let text = strip(answer).to_lowercase();
    let line = text.rsplit('\n').next()?;
    match (line.contains("yes"), line.contains("no")) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// Yes or no, if the answer begins with its letters.
fn first_word(answer: &str) -> Option<bool> {
    let text = strip(answer).to_lowercase();
    let starts =
        [("yes", true), ("no", false)].into_iter().find(|(word, _)| text.starts_with(word));
    starts.map(|(_, is_yes)| is_yes)
}

/// What stands behind the reasoning, or in the first `<answer>` behind it.
fn without_reasoning(answer: &str) -> &str {
    let after = |text, tag| match str::split_once(text, tag) {
        Some((_, rest)) => rest,
        None => text,
    };
    let text = after(after(answer, "</think>"), "</thought>");
    strip(tagged(text).unwrap_or(text))
}

/// What stands in the first `<answer>`, in either case.
fn tagged(text: &str) -> Option<&str> {
    let (_, inner) = split_at_tag(text, "<answer>")?;
    split_at_tag(inner, "</answer>").map(|(inner, _)| inner)
}

/// What stands before and behind a tag in either case.
fn split_at_tag<'a>(text: &'a str, tag: &str) -> Option<(&'a str, &'a str)> {
    let starts = text.match_indices('<');
    let mut found = starts.filter_map(|(at, _)| Some((at, after_tag(&text[at..], tag)?)));
    found.next().map(|(at, rest)| (&text[..at], rest))
}

/// What stands behind the tag at the start of a text.
fn after_tag<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let mut chars = text.chars();
    // Python's IGNORECASE also takes the long s for an s.
    let is_same = |char: char, part| char.eq_ignore_ascii_case(&part) || char == 'ſ' && part == 's';
    let is_tag = tag.chars().all(|part| chars.next().is_some_and(|char| is_same(char, part)));
    is_tag.then_some(chars.as_str())
}
