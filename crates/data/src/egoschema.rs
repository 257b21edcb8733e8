//! EgoSchema: five-option questions about three-minute egocentric videos, in `questions.json`. Of
//! its 5,031 questions, the 500 with published answers (`subset_answers.json`) are an out-of-domain
//! benchmark of Embodied-R.

use std::collections::HashMap;
use std::path::Path;

use embodied_r_files::read_text;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::duplicates::find_duplicate;
use crate::error::{Error, Result};
use crate::prompts::multiple_choice_text;
use crate::question::Question;
use crate::record::{Record, json_type, letter};
use crate::row::file_name;

/// The question file.
pub const QUESTIONS: &str = "questions.json";

/// The file of published answers.
pub const ANSWERS: &str = "subset_answers.json";

/// The category of its questions; EgoSchema itself has none.
pub const CATEGORY: &str = "egoschema";

/// The field of a question's id, also the name of its video without `.mp4`.
pub(crate) const ID: &str = "q_uid";

const OPTIONS: [&str; 5] = ["option 0", "option 1", "option 2", "option 3", "option 4"];

/// The questions with the index of their records; those without an answer are skipped.
pub(crate) fn read<'a>(
    path: &'a Path,
    records: &'a [(usize, Map<String, Value>)],
    answers: Option<&Path>,
) -> Result<Vec<(usize, Question)>> {
    let default = path.with_file_name(ANSWERS);
    let answers = match answers {
        Some(file) => file,
        None if default.is_file() => &default,
        None => return Err(Error::MissingAnswers { path: path.into() }),
    };
    let correct_options = read_answers(answers)?;
    let read = |(index, fields): &'a (usize, Map<String, Value>)| {
        let record = Record { path, index: *index, fields };
        Ok((record, question(&record)?))
    };
    let questions = records.iter().map(read).collect::<Result<Vec<_>>>()?;
    if let Some((first, second)) = find_duplicate(questions.iter().map(|(_, it)| it.id())) {
        let (record, question) = &questions[second];
        let reason = format!(
            "`{}` is a duplicate of record {}",
            question.id(),
            questions[first].0.index + 1
        );
        return Err(record.field_error(ID, reason));
    }
    let answered = |(record, mut question): (Record<'_>, Question)| {
        question.answer = letter(*correct_options.get(&question.id())?);
        Some((record.index, question))
    };
    let questions: Vec<_> = questions.into_iter().filter_map(answered).collect();
    match questions.is_empty() {
        true => Err(Error::UnrelatedAnswers { path: path.into(), answers: answers.into() }),
        false => Ok(questions),
    }
}

/// A record as a question without its answer.
fn question(record: &Record<'_>) -> Result<Question> {
    let id = record.text(ID)?;
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
        scene_name: Some(id.to_owned()),
        extra: record.extra_fields(&used),
        ..Question::default()
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
