//! Records of `problem` (or `question`) and `answer` (or `solution`): EasyR1's data sets and question files on the
//! Hugging Face Hub, with `images` or `videos`; Embodied-R1.5 adds `problem_type`, `options` and others.

use super::build::{Context, Draft, IMAGES, VIDEOS, sample};
use super::conversation::Conversation;
use super::media;
use super::row::Row;
use super::sample::Sample;
use super::video_r1::with_options;
use crate::error::Result;

/// Columns of the text.
pub(super) const PROBLEMS: [&str; 2] = ["problem", "question"];

/// A record as a sample.
pub(super) fn read(row: &Row<'_>, context: Context<'_>) -> Result<Sample> {
    let text = problem(row)?;
    let draft = Draft {
        conversation: Conversation::user(&with_options(row, text)?, context.options.media),
        answer: row.answer(&["answer", "solution"])?,
        images: media::sources(row, &IMAGES)?,
        videos: media::sources(row, &VIDEOS)?,
        used: &PROBLEMS,
    };
    sample(row, context, draft)
}

/// The text of the problem.
pub(super) fn problem<'a>(row: &Row<'a>) -> Result<&'a str> {
    let (name, value) = row.one_of(&PROBLEMS)?.ok_or_else(|| row.missing("question"))?;
    value.as_str().ok_or_else(|| row.type_error(name, "a string", value))
}
