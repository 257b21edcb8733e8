//! EgoSchema: questions about three minutes of egocentric video, with five options each, as
//! `questions.json`. Of 5,031 questions the answers to 500 are published, in
//! `subset_answers.json`; Embodied-R is scored on those, out of its domain.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::benchmark::file_name;
use crate::error::{Error, Result};
use crate::question::Question;
use crate::question_set::{Form, QuestionSet, Record, kind, letter, lettered, refuse_second};

/// The file of the questions.
pub const QUESTIONS: &str = "questions.json";

/// The file of the answers that are published.
pub const ANSWERS: &str = "subset_answers.json";

/// The category that its questions get, as the set has none of its own.
pub const CATEGORY: &str = "egoschema";

/// The field of a question's id, which is also the name of its video without `.mp4`.
pub(crate) const ID: &str = "q_uid";

const OPTIONS: [&str; 5] = ["option 0", "option 1", "option 2", "option 3", "option 4"];

/// Turns records into questions; those without an answer are left out and counted.
pub(crate) fn read(path: PathBuf, values: &[Value], answers: Option<&Path>) -> Result<QuestionSet> {
    let beside = path.with_file_name(ANSWERS);
    let answers = match answers {
        Some(file) => file,
        None if beside.is_file() => &beside,
        None => return Err(Error::NoAnswers { path }),
    };
    let right = read_answers(answers)?;
    let mut seen = HashMap::new();
    let (mut questions, mut places) = (Vec::new(), Vec::new());
    for (place, value) in values.iter().enumerate() {
        let record = Record::new(&path, place, value)?;
        let id = record.text(ID)?;
        refuse_second(&mut seen, &record, ID, id)?;
        let mut question = question(&record, id)?;
        if let Some(&index) = right.get(id) {
            question.answer = letter(index);
            questions.push(question);
            places.push(place);
        }
    }
    if questions.is_empty() {
        return Err(Error::OtherAnswers { path, answers: answers.to_owned() });
    }
    let unanswered = values.len() - questions.len();
    Ok(QuestionSet { path, form: Form::EgoSchema, questions, places, unanswered })
}

/// A record as a question without its answer.
fn question(record: &Record<'_>, id: &str) -> Result<Question> {
    let video_id = format!("{id}.mp4");
    if !file_name(&video_id) {
        return Err(record.fault(ID, format!("`{id}` should be the name of a video file")));
    }
    let options = OPTIONS.iter().map(|field| record.text(field)).collect::<Result<Vec<&str>>>()?;
    let taken: Vec<&str> = [ID].into_iter().chain(OPTIONS).collect();
    Ok(Question {
        question_id: id.into(),
        video_id: Some(video_id),
        question_category: CATEGORY.to_owned(),
        question: lettered(record.text("question")?, &options),
        answer: String::new(),
        scene_name: Some(id.to_owned()),
        videos: None,
        content: None,
        extra: record.others(&taken),
    })
}

/// The index of the right option by question.
fn read_answers(path: &Path) -> Result<HashMap<String, usize>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let Pairs(pairs) = serde_json::from_str(&text)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let mut answers = HashMap::with_capacity(pairs.len());
    for (id, value) in pairs {
        let fault = |fault| Error::Answer { path: path.to_owned(), id: id.clone(), fault };
        let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|&index| index < OPTIONS.len()) else {
            let found = match value {
                Value::Number(number) => number.to_string(),
                other => kind(&other).to_owned(),
            };
            return Err(fault(format!("is {found}, should be an index from 0 to 4")));
        };
        if answers.insert(id.clone(), index).is_some() {
            return Err(fault("is given twice".to_owned()));
        }
    }
    Ok(answers)
}

/// The entries of an object as they stand, so that a name that comes twice is seen.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of question ids and indices")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
