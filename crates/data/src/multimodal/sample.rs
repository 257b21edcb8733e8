//! A question with its conversation, images and videos.

use std::path::PathBuf;
use std::sync::Arc;

use crate::question::Question;

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Its name in chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A piece of a message. Placeholders stand for [`Media`] in order: the third [`Part::Image`] of a conversation is the
/// third image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text, not empty.
    Text(String),
    /// The place of the next image.
    Image,
    /// The place of the next video.
    Video,
}

/// A message of a conversation. Those of [`Role::Assistant`] have text only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its author.
    pub role: Role,
    /// Its pieces, in order.
    pub content: Vec<Part>,
}

impl Message {
    /// Its text without placeholders.
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image | Part::Video => None,
        });
        texts.collect()
    }
}

/// The bytes of an image or a video, or where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaFile {
    /// A file that existed when the question was read.
    Path(PathBuf),
    /// Bytes from within the question file.
    Bytes {
        /// The encoded file; equal ones of a parquet table are shared.
        bytes: Arc<[u8]>,
        /// The name that the question file gives it, or its field, such as `images[0]`.
        name: String,
    },
}

impl MediaFile {
    /// The path, or the name of bytes.
    pub fn name(&self) -> String {
        match self {
            Self::Path(path) => path.to_string_lossy().into_owned(),
            Self::Bytes { name, .. } => name.clone(),
        }
    }
}

/// A video.
#[derive(Debug, Clone, PartialEq)]
pub enum Video {
    /// A video file.
    File(MediaFile),
    /// Its sampled frames.
    Frames {
        /// The frames in time order; at least one.
        frames: Vec<MediaFile>,
        /// Frames per second: those of the question file, or else 2.
        fps: Option<f64>,
    },
}

/// The images and videos of a conversation, in the order of their placeholders.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Media {
    /// Images.
    pub images: Vec<MediaFile>,
    /// Videos.
    pub videos: Vec<Video>,
}

impl Media {
    /// Whether there are neither images nor videos.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.videos.is_empty()
    }

    /// The paths of the images; bytes are named as in the question file.
    pub fn image_names(&self) -> Vec<String> {
        self.images.iter().map(MediaFile::name).collect()
    }
}

/// A question with its conversation, images and videos.
///
/// In [`Self::question`], `question` is the text of the last user message without placeholders and `answer` the
/// reference answer. Images are in `extra["images"]` as they were read, without bytes; videos in `extra["videos"]`, or
/// in `videos` if there is one only and it is a path. All other columns are in `extra`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The question as text.
    pub question: Question,
    /// The conversation: the prompt, and the assistant's turns if the file has them.
    pub messages: Vec<Message>,
    /// Its images and videos.
    pub media: Media,
    /// The prompt with captions that the record has in place of the question, which is not shown.
    pub captioned: Option<String>,
}

impl Sample {
    /// A question about text: one user message.
    pub fn from_text(question: Question) -> Self {
        let text = question.question.clone();
        let content = if text.is_empty() { Vec::new() } else { vec![Part::Text(text)] };
        let messages = vec![Message { role: Role::User, content }];
        Self { question, messages, media: Media::default(), captioned: None }
    }

    /// The messages up to the last user message, without a final assistant's turn.
    pub fn prompt(&self) -> &[Message] {
        let is_prompt = |message: &Message| message.role != Role::Assistant;
        let end = self.messages.iter().rposition(is_prompt).map_or(0, |last| last + 1);
        &self.messages[..end]
    }
}
