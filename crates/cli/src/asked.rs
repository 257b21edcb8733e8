//! Questions to answer: as text, or with the images and videos that the model sees.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use embodied_r_data::Question;
use embodied_r_data::question_set::QuestionSet;
use embodied_r_data::system_prompt::Given;
use embodied_r_media::laid_out::LaidOutSample;
use embodied_r_media::table::ImageTable;
use embodied_r_vision::{ImageLayout, VideoPixels};

/// Questions to answer.
pub(crate) struct Asked {
    /// The questions as text.
    pub(crate) questions: Vec<Question>,
    /// The same ones, if the model sees their images and videos.
    pub(crate) seen: Option<Seen>,
}

/// Questions with the images and videos that the model sees.
pub(crate) struct Seen {
    pub(crate) samples: Vec<LaidOutSample>,
    pub(crate) images: Arc<ImageTable>,
}

/// A question to answer.
pub(crate) struct BatchPrompt<'a> {
    /// Its index in the question set.
    pub(crate) index: usize,
    /// Its identifier, for messages.
    pub(crate) id: String,
    /// The user message.
    pub(crate) text: &'a str,
    /// What the text has, for the system prompt.
    pub(crate) given: Given,
    /// The question with its images and videos, if the model sees them; the text is then not used.
    pub(crate) seen: Option<SeenPrompt<'a>>,
}

/// A question with images and videos.
#[derive(Clone, Copy)]
pub(crate) struct SeenPrompt<'a> {
    pub(crate) question: &'a LaidOutSample,
    /// The table that has its images. Prompts of one call have the same one.
    pub(crate) images: &'a Arc<ImageTable>,
}

impl Asked {
    /// Questions as text.
    pub(crate) fn text(questions: Vec<Question>) -> Self {
        Self { questions, seen: None }
    }

    /// Questions with images and videos of `table`.
    pub(crate) fn seen(samples: Vec<LaidOutSample>, table: ImageTable) -> Self {
        let questions = samples.iter().map(|laid| laid.sample.question.clone()).collect();
        Self { questions, seen: Some(Seen { samples, images: Arc::new(table) }) }
    }

    /// What identifies the prompt of a question in a journal: its text, with the images and videos that are seen.
    pub(crate) fn key(&self, index: usize) -> Cow<'_, str> {
        let text = self.questions[index].question.as_str();
        match self.seen.as_ref().map(|seen| &seen.samples[index]) {
            Some(laid) => Cow::Owned(key(text, laid)),
            None => Cow::Borrowed(text),
        }
    }

    /// The prompt of a question.
    pub(crate) fn prompt(&self, index: usize) -> BatchPrompt<'_> {
        let question = &self.questions[index];
        let seen = self
            .seen
            .as_ref()
            .map(|seen| SeenPrompt { question: &seen.samples[index], images: &seen.images });
        let given = Given::of_question(question);
        BatchPrompt { index, id: question.id(), text: &question.question, given, seen }
    }

    /// For each question that is seen: what the limits on the pixels of its videos applied to, if it has any. A video whose
    /// frames are separate images has none.
    pub(crate) fn video_pixels(&self) -> Vec<Option<VideoPixels>> {
        let Some(seen) = &self.seen else { return Vec::new() };
        let pixels = seen.images.processor().processor().video_pixels();
        let is_video =
            |laid: &LaidOutSample| laid.videos.iter().flatten().any(ImageLayout::is_video);
        seen.samples.iter().map(|laid| is_video(laid).then_some(pixels)).collect()
    }

    /// The questions as records of a question file, with their images and videos.
    pub(crate) fn into_records(self) -> Vec<Question> {
        match self.seen {
            Some(seen) => seen.samples.iter().map(|laid| laid.sample.to_record()).collect(),
            None => self.questions,
        }
    }
}

/// Says how many records of a benchmark are left out because no answer is published.
pub(crate) fn report_unanswered(set: &QuestionSet) {
    if set.unanswered > 0 {
        eprintln!(
            "skipping {} of {} questions without a published answer",
            set.unanswered,
            set.unanswered + set.questions.len()
        );
    }
}

/// The messages before the question, the question, and the digests of images and videos.
fn key(text: &str, laid: &LaidOutSample) -> String {
    let earlier = laid.sample.prompt().split_last().map_or(&[][..], |(_, earlier)| earlier);
    let mut key: String = earlier
        .iter()
        .map(|message| format!("{}: {}\n", message.role.as_str(), message.text()))
        .collect();
    key.push_str(text);
    for layout in laid.images.iter().chain(laid.videos.iter().flatten()) {
        // A string takes all that is written to it.
        let _ = write!(key, "\n<{:032x}>", layout.digest());
    }
    key
}
