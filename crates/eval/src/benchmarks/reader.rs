//! What readers of benchmarks share.

use embodied_r_data::Result;
use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation, Content};
use embodied_r_data::vsi::question_text;
use serde_json::{Map, Value};

/// A question with its identifier in the first of the columns `ids` that the record has, and nothing else.
pub(super) fn question(annotation: &Annotation<'_>, ids: &[&str]) -> AnnotatedQuestion {
    AnnotatedQuestion {
        id: annotation.id(ids),
        category: String::new(),
        content: Vec::new(),
        answer: String::new(),
        video: None,
        columns: Map::new(),
    }
}

/// Images, then text.
pub(super) fn images_first(mut images: Vec<Content>, text: String) -> Vec<Content> {
    images.push(Content::Text(text));
    images
}

/// A video, then text.
pub(super) fn video_first(text: String) -> Vec<Content> {
    vec![Content::Video, Content::Text(text)]
}

/// The question in this program's form, with a line per option.
pub(super) fn own_text(question: &str, options: &[String]) -> String {
    question_text(question, (!options.is_empty()).then_some(options))
}

/// The letter of the option at `index`, from 0.
pub(super) fn letter(index: usize) -> Option<char> {
    ('A'..='Z').nth(index)
}

/// Lines `A) text` or so, one for each option: the letter, `mark`, and the option.
pub(super) fn lettered(options: &[String], mark: &str) -> Vec<String> {
    let lines = ('A'..='Z').zip(options);
    lines.map(|(letter, option)| format!("{letter}{mark}{option}")).collect()
}

/// The options as a column for scorers.
pub(super) fn options_column(options: &[String]) -> (String, Value) {
    ("options".to_owned(), options.to_vec().into())
}

/// The letter of the index in `column`, of one of `count` options.
pub(super) fn answer_at(annotation: &Annotation<'_>, column: &str, count: usize) -> Result<String> {
    let index = annotation.value(column).and_then(Value::as_u64).map(|index| index as usize);
    let letter = index.filter(|index| *index < count).and_then(letter);
    letter.map(String::from).ok_or_else(|| {
        annotation.error(column, format!("must be the index of one of the {count} options, from 0"))
    })
}

/// The answer in `column`, which must be an option letter from A to `last`, in brackets or not.
pub(super) fn answer_letter(
    annotation: &Annotation<'_>,
    column: &str,
    last: char,
) -> Result<String> {
    let text = annotation.text(column)?;
    let inner = text.trim().trim_start_matches('(').trim_end_matches(')');
    let mut chars = inner.chars();
    match (chars.next(), chars.next()) {
        (Some(letter), None) if ('A'..=last).contains(&letter) => Ok(letter.to_string()),
        _ => Err(annotation
            .error(column, format!("must be an option letter from A to {last}, not `{text}`"))),
    }
}
