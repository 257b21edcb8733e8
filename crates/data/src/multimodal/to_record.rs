//! A sample as a record of a question file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::markers;
use super::media::FRAME_FIELDS;
use super::sample::{MediaFile, Part, Role, Sample, Video};
use crate::question::Question;

impl Sample {
    /// The question as a record of a question file that gives the same last message and media when it is read: markers
    /// are in the text, and bytes are data URIs. A captioned question is again the prompt with its captions. System
    /// messages and earlier turns are not part of it; if they show media, the record has no markers.
    pub fn to_record(&self) -> Question {
        let mut question = self.question.clone();
        if self.media.is_empty() {
            return question;
        }
        if let Some(captioned) = &self.captioned {
            question.question.clone_from(captioned);
        } else if let Some(message) =
            self.messages.iter().rfind(|message| message.role == Role::User)
        {
            let count = |part| message.content.iter().filter(|&other| *other == part).count();
            let shows_all = count(Part::Image) == self.media.images.len()
                && count(Part::Video) == self.media.videos.len();
            question.question =
                if shows_all { markers::join(&message.content) } else { message.text() };
        }
        if let Some(Value::Array(images)) = question.extra.get_mut("images") {
            for (value, file) in images.iter_mut().zip(&self.media.images) {
                embed(value, file);
            }
        }
        if let Some(Value::Array(videos)) = question.extra.get_mut("videos") {
            for (value, video) in videos.iter_mut().zip(&self.media.videos) {
                embed_video(value, video);
            }
        }
        question
    }
}

/// Replaces `value`, which refers to `file`, by a data URI if `file` is bytes.
fn embed(value: &mut Value, file: &MediaFile) {
    if let MediaFile::Bytes { bytes, .. } = file {
        let uri = format!("data:application/octet-stream;base64,{}", BASE64.encode(bytes));
        *value = Value::String(uri);
    }
}

fn embed_video(value: &mut Value, video: &Video) {
    let (frames, files) = match (video, value) {
        (Video::File(file), value) => return embed(value, file),
        (Video::Frames { frames: files, .. }, Value::Array(frames)) => (frames, files),
        (Video::Frames { frames: files, .. }, Value::Object(fields)) => {
            let Some(name) = FRAME_FIELDS
                .into_iter()
                .find(|&name| fields.get(name).is_some_and(Value::is_array))
            else {
                return;
            };
            match fields.get_mut(name) {
                Some(Value::Array(frames)) => (frames, files),
                _ => return,
            }
        }
        _ => return,
    };
    for (value, file) in frames.iter_mut().zip(files) {
        embed(value, file);
    }
}
