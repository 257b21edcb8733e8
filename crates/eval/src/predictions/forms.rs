//! The forms of records of predictions.

use std::path::Path;

use embodied_r_data::question::category;
use embodied_r_rewards::answer_type::AnswerType;
use embodied_r_rewards::records::{self, Record};
use serde_json::{Map, Value};

use super::{Prediction, PredictionOutput, video};
use crate::error::{Error, Result};

/// The file's records.
pub(super) fn records(path: &Path) -> Result<Vec<Record>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("tsv") => table(path),
        Some("xlsx") => Err(Error::Spreadsheet { path: path.into() }),
        _ => Ok(records::read(path)?),
    }
}

/// The rows of a table whose values are separated by tabs, below the names of its columns. Empty values are absent.
fn table(path: &Path) -> Result<Vec<Record>> {
    let fault = |source| Error::Table { path: path.into(), source };
    let mut table = csv::ReaderBuilder::new().delimiter(b'\t').from_path(path).map_err(fault)?;
    let columns = table.headers().map_err(fault)?.clone();
    let record = |(index, row): (usize, Result<csv::StringRecord, csv::Error>)| {
        let row = row.map_err(fault)?;
        let fields = columns.iter().zip(&row).filter(|(_, value)| !value.is_empty());
        let fields: Map<String, Value> =
            fields.map(|(column, value)| (column.to_owned(), value.into())).collect();
        Ok(Record::new(format!("row {} of `{}`", index + 1, path.display()), fields))
    };
    table.records().enumerate().map(record).collect()
}

/// The prediction of a record, whose form its fields tell.
pub(super) fn prediction(record: &Record) -> Result<Prediction> {
    if record.has("content") || record.has("question_category") {
        return official(record);
    }
    if record.has("doc_id") {
        return sample(record);
    }
    if record.has("category") || record.has("solution") {
        return plain(record);
    }
    bare(record)
}

fn official(record: &Record) -> Result<Prediction> {
    let prompt = record.optional_text("prompt")?;
    Ok(Prediction {
        id: record.text_or_number("Question_id")?,
        video: video(record)?,
        category: official_category(record)?.to_owned(),
        solution: record.answer("answer")?,
        question: record.optional_text("question")?.unwrap_or_default().to_owned(),
        answer_type: AnswerType::of_columns(record.fields()),
        columns: record.fields().clone(),
        output: match record.optional_text("content")? {
            Some(text) => PredictionOutput::reply(text.to_owned(), prompt),
            None => PredictionOutput::Missing,
        },
        ..Prediction::default()
    })
}

/// The category of an official record, as [`Question::category`](embodied_r_data::Question::category) has it.
fn official_category(record: &Record) -> Result<&str> {
    let kind = record.optional_text("kind")?;
    Ok(match kind {
        Some(kind) => {
            category(record.optional_text("question_category")?.unwrap_or_default(), Some(kind))
        }
        None => record.text("question_category")?,
    })
}

fn plain(record: &Record) -> Result<Prediction> {
    Ok(Prediction {
        category: record.text("category")?.to_owned(),
        solution: record.answer("solution")?,
        answer_type: AnswerType::of_columns(record.fields()),
        columns: record.fields().clone(),
        ..bare(record)?
    })
}

fn bare(record: &Record) -> Result<Prediction> {
    let name = ["id", "index"].into_iter().find(|name| record.has(name)).unwrap_or("id");
    Ok(Prediction {
        id: record.text_or_number(name)?,
        video: video(record)?,
        output: output(record.optional_text_or_number("prediction")?),
        ..Prediction::default()
    })
}

/// A line of lmms-eval's samples.
fn sample(record: &Record) -> Result<Prediction> {
    let row = record.text_or_number("doc_id")?.parse();
    let text = |field: &str| record.fields().get(field).and_then(first_text).map(str::to_owned);
    Ok(Prediction {
        row: Some(row.map_err(|_| record.field_error("doc_id", "must be a row, from 0"))?),
        output: output(text("resps").or_else(|| text("filtered_resps"))),
        ..Prediction::default()
    })
}

/// The first text in nested lists.
fn first_text(value: &Value) -> Option<&str> {
    match value {
        Value::Array(values) => values.iter().find_map(first_text),
        value => value.as_str(),
    }
}

fn output(prediction: Option<String>) -> PredictionOutput {
    prediction.map_or(PredictionOutput::Missing, PredictionOutput::Answer)
}
