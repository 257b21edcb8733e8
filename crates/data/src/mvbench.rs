//! MVBench's task `egocentric_navigation`: which move comes next? Embodied-R is scored on its 200
//! questions, out of its domain.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::Result;
use crate::question::Question;
use crate::question_set::{Form, QuestionSet, Record, kind, letter, lettered};

/// The file of the questions, in the order of where it is looked for in a folder.
pub const QUESTIONS: [&str; 2] = ["egocentric_navigation.json", "json/egocentric_navigation.json"];

/// The category that its questions get: the name of the task.
pub const CATEGORY: &str = "egocentric_navigation";

/// The field of the options.
pub(crate) const CANDIDATES: &str = "candidates";

/// Options have letters from A to H, as answers are read.
const MOST_CANDIDATES: usize = 8;

/// Turns records into questions.
pub(crate) fn read(path: PathBuf, values: &[Value]) -> Result<QuestionSet> {
    let question = |(place, value)| question(&Record::new(&path, place, value)?);
    let questions = values.iter().enumerate().map(question).collect::<Result<Vec<_>>>()?;
    let places = (0..questions.len()).collect();
    Ok(QuestionSet { form: Form::MvBench, questions, places, unanswered: 0, path })
}

fn question(record: &Record<'_>) -> Result<Question> {
    let video = record.text("video")?;
    let Some(name) = inside(video) else {
        let fault = format!("`{video}` should be the path of a video within the folder of videos");
        return Err(record.fault("video", fault));
    };
    let candidates = candidates(record)?;
    let answer = record.text("answer")?;
    let mut right = candidates.iter().enumerate().filter(|(_, candidate)| **candidate == answer);
    let index = match (right.next(), right.next()) {
        (Some((index, _)), None) => index,
        (None, _) => {
            let fault = format!("`{answer}` is none of the candidates: {}", candidates.join(", "));
            return Err(record.fault("answer", fault));
        }
        (Some(_), Some(_)) => {
            return Err(record.fault("answer", format!("`{answer}` is a candidate twice")));
        }
    };
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Question {
        // The set has no ids of its own.
        question_id: record.place.into(),
        video_id: Some(name.to_owned()),
        question_category: CATEGORY.to_owned(),
        question: lettered(record.text("question")?, &candidates),
        answer: letter(index),
        scene_name: Some(stem),
        videos: (name != video).then(|| video.to_owned()),
        content: None,
        extra: record.others(&["video", CANDIDATES]),
    })
}

fn candidates<'a>(record: &Record<'a>) -> Result<Vec<&'a str>> {
    let value =
        record.fields.get(CANDIDATES).ok_or_else(|| record.fault(CANDIDATES, "is missing"))?;
    let Value::Array(list) = value else {
        let fault = format!("should be a list, but is {}", kind(value));
        return Err(record.fault(CANDIDATES, fault));
    };
    if !(2..=MOST_CANDIDATES).contains(&list.len()) {
        let fault =
            format!("should be 2 to {MOST_CANDIDATES} options, but there are {}", list.len());
        return Err(record.fault(CANDIDATES, fault));
    }
    let text = |(index, value)| record.text_of(&format!("{CANDIDATES}[{index}]"), value);
    list.iter().enumerate().map(text).collect()
}

/// The file's name of a path that stays within its folder.
fn inside(video: &str) -> Option<&str> {
    let mut parts = Path::new(video).components();
    let stays = parts.all(|part| matches!(part, Component::Normal(_)));
    let clean = stays && !video.contains(['\\', '\0']);
    if clean { Path::new(video).file_name()?.to_str() } else { None }
}
