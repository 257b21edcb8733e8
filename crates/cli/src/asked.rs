//! Questions to answer: as text, or with the images and videos that the model sees.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use embodied_r_data::question_set::QuestionSet;
use embodied_r_data::system_prompt::Given;
use embodied_r_data::{Question, QuestionKey};
use embodied_r_media::laid_out::LaidOutSample;
use embodied_r_media::table::ImageTable;
use embodied_r_vision::{ImageLayout, VideoPixels};

use crate::questions::Annotations;

/// Questions to answer.
pub(crate) struct Asked {
    /// The questions as text.
    pub(crate) questions: Vec<Question>,
    /// The same ones, if the model sees their images and videos.
    pub(crate) seen: Option<Seen>,
    /// The benchmark's prompt that they are asked with, if any.
    pub(crate) prompt: Option<&'static str>,
    /// Questions that are not asked, as an image or a video of theirs is missing or broken.
    pub(crate) left_out: Vec<Question>,
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
        Self { questions, seen: None, prompt: None, left_out: Vec::new() }
    }

    /// Questions with images and videos of `table`.
    pub(crate) fn seen(samples: Vec<LaidOutSample>, table: ImageTable) -> Self {
        let questions = samples.iter().map(|laid| laid.sample.question.clone()).collect();
        let seen = Some(Seen { samples, images: Arc::new(table) });
        Self { questions, seen, prompt: None, left_out: Vec::new() }
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

    /// The same questions of a benchmark, with its prompt and with those that are not asked.
    ///
    /// # Errors
    /// The benchmark's questions cannot be read.
    pub(crate) fn of_annotations(self, annotations: &Annotations) -> anyhow::Result<Self> {
        let asked: HashSet<QuestionKey> = self.questions.iter().map(Question::key).collect();
        let all = annotations.read_text()?.questions.into_iter();
        let left_out = all.filter(|question| !asked.contains(&question.key())).collect();
        Ok(Self { prompt: Some(annotations.prompt), left_out, ..self })
    }

    /// The questions as records of a question file, with their images and videos, and the benchmark's prompt.
    pub(crate) fn into_records(self) -> Vec<Question> {
        let mut questions = match self.seen {
            Some(seen) => seen.samples.iter().map(|laid| laid.sample.to_record()).collect(),
            None => self.questions,
        };
        if let Some(prompt) = self.prompt {
            for question in &mut questions {
                question.extra.insert("prompt".to_owned(), prompt.into());
            }
        }
        questions
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
