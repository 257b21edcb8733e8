//! LLaVA's and ShareGPT's records: `id`, `image` (a string or a list) or `video`, `conversations` of `from` and `value`.

use super::build::{ANSWERS, Context, Draft, IMAGES, VIDEOS, sample};
use super::conversation;
use super::media;
use super::row::Row;
use super::sample::{Part, Sample};
use crate::error::Result;

/// A record as a sample. The answer is that of a final assistant's turn, unless the record has one. Where a record has
/// videos and no image, `<image>` marks a video, as in LLaVA-Video's files.
pub(super) fn read(row: &Row<'_>, context: Context<'_>) -> Result<Sample> {
    let mut conversation = conversation::read(row, "conversations", context.options.media)?;
    let (images, videos) = (media::sources(row, &IMAGES)?, media::sources(row, &VIDEOS)?);
    let mut parts: Vec<&mut Part> =
        conversation.messages.iter_mut().flat_map(|message| &mut message.content).collect();
    if images.is_empty() && !videos.is_empty() && !parts.iter().any(|part| **part == Part::Video) {
        for part in parts.iter_mut().filter(|part| ***part == Part::Image) {
            **part = Part::Video;
        }
    }
    let answer = row.answer(&ANSWERS)?.or_reply(conversation.final_reply());
    sample(row, context, Draft { conversation, answer, images, videos, used: &["conversations"] })
}
