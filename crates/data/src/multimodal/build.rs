//! From a record's conversation, answer and media to a sample.

use serde_json::Value;

use super::conversation::Conversation;
use super::markers;
use super::media::{self, Folder, Source};
use super::options::{MediaUse, ReadOptions};
use super::row::{Answer, Row};
use super::sample::{Media, MediaFile, Sample, Video};
use crate::error::Result;
use crate::question::Question;
use crate::record::scalar_text;

/// Where records and their media are read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) options: &'a ReadOptions,
    pub(super) folder: Folder<'a>,
}

/// Columns that name images.
pub(super) const IMAGES: [&str; 2] = ["images", "image"];
/// Columns that name videos.
pub(super) const VIDEOS: [&str; 2] = ["videos", "video"];
/// Columns with an identifier.
const IDS: [&str; 4] = ["Question_id", "question_id", "problem_id", "id"];
/// Columns with the reference answer, where the first one of both is the one for rewards.
pub(super) const ANSWERS: [&str; 2] = ["solution", "answer"];

/// What a format takes from a record.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) conversation: Conversation<'a>,
    pub(super) answer: Answer,
    pub(super) images: Vec<Source<'a>>,
    pub(super) videos: Vec<Source<'a>>,
    /// Further columns that are not extra ones.
    pub(super) used: &'a [&'a str],
}

/// Finds the media and makes the sample.
///
/// # Errors
/// A file is missing, or the placeholders do not match.
pub(super) fn sample(row: &Row<'_>, context: Context<'_>, draft: Draft<'_>) -> Result<Sample> {
    let Draft { mut conversation, answer, images, videos, used } = draft;
    let question_text = |conversation: &Conversation<'_>, changed: bool| match changed {
        true => conversation.user_text().trim().to_owned(),
        false => conversation.user_text(),
    };
    let id = IDS.into_iter().find_map(|name| Some((name, row.get(name).filter(|id| is_id(id))?)));
    let columns = [IMAGES, VIDEOS].concat().into_iter().chain(answer.column);
    let used: Vec<&str> =
        used.iter().copied().chain(columns).chain(id.map(|(name, _)| name)).collect();
    let mut question = Question {
        question_id: id.map_or_else(|| row.record.index.into(), |(_, id)| id.clone()),
        video_id: row.get("video_id").and_then(scalar_text),
        question_category: category(row),
        scene_name: row.optional_scalar("scene_name")?,
        extra: row.record.extra_fields(&used),
        ..Question::default()
    };
    question.set_answers(answer.texts.iter().map(|text| without_tags(text).to_owned()).collect());
    if context.options.media == MediaUse::Ignored {
        question.question = question_text(&conversation, false);
        let messages = conversation.messages;
        return Ok(Sample { question, messages, media: Media::default(), captioned: None });
    }
    let images = chosen(row, "images", images, std::mem::take(&mut conversation.images))?;
    let videos = chosen(row, "videos", videos, std::mem::take(&mut conversation.videos))?;
    let media = Media {
        images: media::images(row, &images, context.folder)?,
        videos: media::videos(row, &videos, context.folder)?,
    };
    markers::place(&mut conversation.messages, media.images.len(), media.videos.len())
        .map_err(|reason| row.error(reason))?;
    question.question = question_text(&conversation, !media.is_empty());
    keep_sources(&mut question, &images, &videos, &media);
    Ok(Sample { question, messages: conversation.messages, media, captioned: None })
}

/// Media are either in columns or in the messages.
fn chosen<'a>(
    row: &Row<'_>,
    field: &str,
    columns: Vec<Source<'a>>,
    parts: Vec<Source<'a>>,
) -> Result<Vec<Source<'a>>> {
    match (columns.is_empty(), parts.is_empty()) {
        (_, true) => Ok(columns),
        (true, false) => Ok(parts),
        (false, false) => {
            let reason =
                format!("are also in the messages (`{}`); keep one of them", parts[0].field);
            Err(row.record.field_error(field, reason))
        }
    }
}

/// Keeps images and videos as they were read, for files that are written.
pub(super) fn keep_sources(
    question: &mut Question,
    images: &[Source<'_>],
    videos: &[Source<'_>],
    media: &Media,
) {
    let list = |sources: &[Source<'_>]| sources.iter().map(|source| source.value.clone()).collect();
    if !images.is_empty() {
        question.extra.insert("images".to_owned(), Value::Array(list(images)));
    }
    match (videos, media.videos.as_slice()) {
        ([], _) => {}
        ([Source { value: Value::String(path), .. }], [Video::File(MediaFile::Path(_))]) => {
            question.videos = Some(path.clone());
        }
        _ => {
            question.extra.insert("videos".to_owned(), Value::Array(list(videos)));
        }
    }
}

fn is_id(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

fn category(row: &Row<'_>) -> String {
    let names = ["question_category", "category", "kind", "data_source", "problem_type"];
    let text = names.iter().find_map(|name| row.get(name).and_then(Value::as_str));
    text.unwrap_or_default().to_owned()
}

/// The text of the last `<answer>` tag, or all of it without one, trimmed.
pub(super) fn without_tags(answer: &str) -> &str {
    let tagged = answer.rsplit_once("<answer>").and_then(|(_, rest)| rest.split_once("</answer>"));
    tagged.map_or(answer, |(inner, _)| inner).trim()
}
