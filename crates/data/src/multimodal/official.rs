//! This project's own question files: `Question_id`, `question`, `answer`, with `images` and `videos`.

use super::build::{Context, keep_sources};
use super::conversation::Conversation;
use super::markers;
use super::media;
use super::options::MediaUse;
use super::row::Row;
use super::sample::{Media, MediaFile, Sample, Video};
use crate::error::Result;
use crate::question::{Question, VIDEOS};
use crate::video_file::{VideoFolders, find_video};

/// A record as a sample; a question with captions is shown without them. `videos` that is a string is looked up as
/// `perceive` does, as is `video_id` alone of a question without images; a list of videos, as in other formats.
pub(super) fn read(row: &Row<'_>, context: Context<'_>) -> Result<Sample> {
    let mut question = Question::from_record(&row.record)?;
    if context.options.media == MediaUse::Ignored {
        return Ok(Sample::from_text(question));
    }
    let images = media::sources(row, &["images"])?;
    let videos = match question.extra.shift_remove(VIDEOS) {
        Some(_) => media::sources(row, &[VIDEOS])?,
        None => Vec::new(),
    };
    let mut found = Media {
        images: media::images(row, &images, context.folder)?,
        videos: media::videos(row, &videos, context.folder)?,
    };
    found.videos.extend(own_video(row, context, &question, &found)?);
    if found.is_empty() {
        return match question.original_question() {
            // A text of the user's, whatever it looks like.
            None => Ok(Sample::from_text(question)),
            Some(_) => {
                let reason =
                    "has captions, which a model that sees is not given, but no image or video";
                Err(row.error(reason.to_owned()))
            }
        };
    }
    let captioned = take_captions(&mut question).map_err(|reason| row.error(reason))?;
    let mut conversation = Conversation::user(&question.question, MediaUse::Required);
    markers::place(&mut conversation.messages, found.images.len(), found.videos.len())
        .map_err(|reason| row.error(reason))?;
    let text = conversation.user_text();
    if text.len() != question.question.len() {
        question.question = text.trim().to_owned();
    }
    keep_sources(&mut question, &images, &videos, &found);
    Ok(Sample { question, messages: conversation.messages, media: found, captioned })
}

/// Replaces a prompt with captions by the question alone, and returns the prompt.
fn take_captions(question: &mut Question) -> std::result::Result<Option<String>, String> {
    if !question.has_captions() {
        return Ok(None);
    }
    let alone = question.without_captions().ok_or(
        "contains captions but neither `original_question` nor a final `Question:`, so a model that sees would read \
         the captions",
    )?;
    let alone = alone.to_owned();
    Ok(Some(std::mem::replace(&mut question.question, alone)))
}

/// The one video of the question.
fn own_video(
    row: &Row<'_>,
    context: Context<'_>,
    question: &Question,
    found: &Media,
) -> Result<Option<Video>> {
    let (field, listed, named) = match (&question.videos, &question.video_id) {
        (Some(videos), named) => (VIDEOS, Some(videos.as_str()), named.as_deref()),
        (None, Some(named)) if found.is_empty() => ("video_id", None, Some(named.as_str())),
        _ => return Ok(None),
    };
    let folders = VideoFolders {
        video_dir: context.options.video_dir.as_deref(),
        image_dir: context.folder.image_dir,
        beside: context.folder.beside,
    };
    match find_video(listed, named, folders) {
        Some(path) => Ok(Some(Video::File(MediaFile::Path(path)))),
        None => {
            let name = listed.or(named).unwrap_or_default();
            let reason = format!(
                "the video `{name}` does not exist; pass the folder of the videos with `--video-dir`"
            );
            Err(row.record.field_error(field, reason))
        }
    }
}
