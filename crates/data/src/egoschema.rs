//! EgoSchema: five-option questions about three-minute egocentric videos, in `questions.json`. Of
//! its 5,031 questions, the 500 with published answers (`subset_answers.json`) are an out-of-domain
//! benchmark of Embodied-R.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::benchmark::file_name;
use crate::error::{Error, Result};
use crate::question::Question;
use crate::question_set::{
    QuestionFormat, QuestionSet, Record, json_type, letter, multiple_choice_text, reject_duplicate,
};
use crate::text::read_text;

/// The question file.
pub const QUESTIONS: &str = "questions.json";

/// The file of published answers.
pub const ANSWERS: &str = "subset_answers.json";

/// The category of its questions; EgoSchema itself has none.
pub const CATEGORY: &str = "egoschema";

/// The field of a question's id, also the name of its video without `.mp4`.
pub(crate) const ID: &str = "q_uid";

const OPTIONS: [&str; 5] = ["option 0", "option 1", "option 2", "option 3", "option 4"];

/// Converts records to questions; those without an answer are skipped and counted.
pub(crate) fn read(path: PathBuf, values: &[Value], answers: Option<&Path>) -> Result<QuestionSet> {
    let default = path.with_file_name(ANSWERS);
    let answers = match answers {
        Some(file) => file,
        None if default.is_file() => &default,
        None => return Err(Error::MissingAnswers { path }),
    };
    let correct_options = read_answers(answers)?;
    let mut seen = HashMap::new();
    let (mut questions, mut record_indices) = (Vec::new(), Vec::new());
    for (index, value) in values.iter().enumerate() {
        let record = Record::new(&path, index, value)?;
        let id = record.text(ID)?;
        reject_duplicate(&mut seen, &record, ID, id)?;
        let mut question = question(&record, id)?;
        if let Some(&option) = correct_options.get(id) {
            question.answer = letter(option);
            questions.push(question);
            record_indices.push(index);
        }
    }
    if questions.is_empty() {
        return Err(Error::UnrelatedAnswers { path, answers: answers.to_owned() });
    }
    let unanswered = values.len() - questions.len();
    Ok(QuestionSet {
        path,
        format: QuestionFormat::EgoSchema,
        questions,
        record_indices,
        unanswered,
    })
}

/// A record as a question without its answer.
fn question(record: &Record<'_>, id: &str) -> Result<Question> {
    let video_id = format!("{id}.mp4");
    if !file_name(&video_id) {
        return Err(record.field_error(ID, format!("`{id}` must be the name of a video file")));
    }
    let options = OPTIONS.iter().map(|field| record.text(field)).collect::<Result<Vec<&str>>>()?;
    let used: Vec<&str> = [ID].into_iter().chain(OPTIONS).collect();
    Ok(Question {
        question_id: id.into(),
        video_id: Some(video_id),
        question_category: CATEGORY.to_owned(),
        question: multiple_choice_text(record.text("question")?, &options),
        answer: String::new(),
        scene_name: Some(id.to_owned()),
        videos: None,
        content: None,
        extra: record.extra_fields(&used),
    })
}

/// The index of the correct option by question id.
fn read_answers(path: &Path) -> Result<HashMap<String, usize>> {
    let text = read_text(path)?;
    let Pairs(pairs) = serde_json::from_str(&text)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let mut answers = HashMap::with_capacity(pairs.len());
    for (id, value) in pairs {
        let invalid = |reason| Error::Answer { path: path.to_owned(), id: id.clone(), reason };
        let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|&index| index < OPTIONS.len()) else {
            let found = match value {
                Value::Number(number) => number.to_string(),
                other => json_type(&other).to_owned(),
            };
            return Err(invalid(format!("must be an index from 0 to 4, not {found}")));
        };
        if answers.insert(id.clone(), index).is_some() {
            return Err(invalid("is duplicated".to_owned()));
        }
    }
    Ok(answers)
}

/// The entries of an object in order, to detect duplicate keys.
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
