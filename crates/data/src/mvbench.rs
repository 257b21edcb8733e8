//! MVBench's task `egocentric_navigation`: which move comes next? Its 200 questions are an
//! out-of-domain benchmark of Embodied-R.

use std::path::{Component, Path};

use serde_json::{Map, Value};

use crate::error::Result;
use crate::prompts::multiple_choice_text;
use crate::question::Question;
use crate::record::{Record, json_type, letter};

/// The question file's possible paths within a folder, in search order.
pub const QUESTIONS: [&str; 2] = ["egocentric_navigation.json", "json/egocentric_navigation.json"];

/// The category of its questions: the name of the task.
pub const CATEGORY: &str = "egocentric_navigation";

/// The field of the options.
pub(crate) const CANDIDATES: &str = "candidates";

/// Answer extraction supports the letters A to H.
const MAX_CANDIDATES: usize = 8;

/// The questions with the index of their records.
pub(crate) fn read(
    path: &Path,
    records: &[(usize, Map<String, Value>)],
) -> Result<Vec<(usize, Question)>> {
    let question = |(index, fields): &(usize, Map<String, Value>)| {
        Ok((*index, question(&Record { path, index: *index, fields })?))
    };
    records.iter().map(question).collect()
}

fn question(record: &Record<'_>) -> Result<Question> {
    let video = record.text("video")?;
    let Some(name) = contained_file_name(video) else {
        let reason = format!("`{video}` must be a path within the video directory");
        return Err(record.field_error("video", reason));
    };
    let candidates = candidates(record)?;
    let answer = record.text("answer")?;
    let mut right = candidates.iter().enumerate().filter(|(_, candidate)| **candidate == answer);
    let index = match (right.next(), right.next()) {
        (Some((index, _)), None) => index,
        (None, _) => {
            let reason =
                format!("`{answer}` is not one of the candidates: {}", candidates.join(", "));
            return Err(record.field_error("answer", reason));
        }
        (Some(_), Some(_)) => {
            return Err(
                record.field_error("answer", format!("`{answer}` matches several candidates"))
            );
        }
    };
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Question {
        // MVBench has no question ids.
        question_id: record.index.into(),
        video_id: Some(name.to_owned()),
        question_category: CATEGORY.to_owned(),
        question: multiple_choice_text(record.text("question")?, &candidates),
        answer: letter(index),
        scene_name: Some(stem),
        videos: (name != video).then(|| video.to_owned()),
        extra: record.extra_fields(&["video", CANDIDATES]),
        ..Question::default()
    })
}

fn candidates<'a>(record: &Record<'a>) -> Result<Vec<&'a str>> {
    let value = record
        .fields
        .get(CANDIDATES)
        .ok_or_else(|| record.field_error(CANDIDATES, "is missing"))?;
    let Value::Array(list) = value else {
        let reason = format!("must be an array, not {}", json_type(value));
        return Err(record.field_error(CANDIDATES, reason));
    };
    if !(2..=MAX_CANDIDATES).contains(&list.len()) {
        let reason = format!("must have 2 to {MAX_CANDIDATES} options, not {}", list.len());
        return Err(record.field_error(CANDIDATES, reason));
    }
    let text = |(index, value)| record.text_of(&format!("{CANDIDATES}[{index}]"), value);
    list.iter().enumerate().map(text).collect()
}

/// The file name of `video` if the path stays within its folder.
fn contained_file_name(video: &str) -> Option<&str> {
    let mut parts = Path::new(video).components();
    let stays = parts.all(|part| matches!(part, Component::Normal(_)));
    let clean = stays && !video.contains(['\\', '\0']);
    if clean { Path::new(video).file_name()?.to_str() } else { None }
}
