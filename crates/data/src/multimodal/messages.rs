//! ms-swift's records: `messages`, `images`, `videos` (a video may be a list of frames), `solution`.

use super::build::{ANSWERS, Context, Draft, IMAGES, VIDEOS, sample};
use super::conversation;
use super::media;
use super::row::Row;
use super::sample::Sample;
use crate::error::Result;

/// A record as a sample. Without a `solution`, the answer is that of a final assistant's turn.
pub(super) fn read(row: &Row<'_>, context: Context<'_>) -> Result<Sample> {
    let conversation = conversation::read(row, "messages", context.options.media)?;
    let draft = Draft {
        answer: row.answer(&ANSWERS)?.or_reply(conversation.final_reply()),
        conversation,
        images: media::sources(row, &IMAGES)?,
        videos: media::sources(row, &VIDEOS)?,
        used: &["messages"],
    };
    sample(row, context, draft)
}
