//! Turning key frames into words.
//!
//! A [`Captioner`] gets the question without its answer ([`Asked`]), or none where captions serve all
//! questions of a video, and the video ([`Footage`]), and returns one [`Caption`] per key frame. [`ModelCaptions`]
//! asks a vision-language model: one behind an OpenAI-compatible API ([`Remote`]) or one in this process
//! ([`LocalModel`]). [`SceneCaptions`] tells the truth from 3-D annotations.

mod footage;
mod journal;
mod model;
mod replies;
mod scene;
mod spending;

use embodied_r_data::Question;
use embodied_r_data::prompts::{self, FrameText};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Result;

pub use footage::{Decoders, Footage, KeyFrame};
pub use model::{
    ChatModel, LocalModel, LocalOptions, ModelCaptions, ModelOptions, Refused, Remote,
};
pub use scene::SceneCaptions;
pub use spending::{Prices, Totals};

/// Makes captions. Calls come from several questions at once.
pub trait Captioner: Sync {
    /// Everything beside video and question that captions depend on, such as the model's name.
    fn settings(&self) -> Map<String, Value>;

    /// Whether a question can be captioned at all, before any work on its video.
    ///
    /// # Errors
    /// What the captioner knows of the video cannot support such a question.
    fn check(&self, _asked: Asked<'_>) -> Result<()> {
        Ok(())
    }

    /// A few figures of its own for the line of progress.
    fn status(&self) -> Option<String> {
        None
    }

    /// The captions of one question's video, one per key frame, in order.
    ///
    /// # Errors
    /// The video cannot be read, the model cannot be reached or refuses, or the annotations do not
    /// cover the video.
    fn caption<'a>(
        &'a self,
        asked: Asked<'a>,
        footage: &'a Footage,
    ) -> BoxFuture<'a, Result<Vec<Caption>>>;
}

/// What a captioner may know of a question: all but the answer.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The question and its choices; `None` where the captions serve all questions of the video.
    pub text: Option<&'a str>,
    /// The benchmark's category; `None` as with the text.
    pub category: Option<&'a str>,
    /// The scene that the video was taken in.
    pub scene_name: Option<&'a str>,
    /// The video's file name without extension.
    pub video_stem: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// The part of `question` that may be known.
    pub fn of(question: &'a Question) -> Self {
        let file = question.video_id.as_deref().or(question.videos.as_deref());
        let stem = file.and_then(|file| std::path::Path::new(file).file_stem()?.to_str());
        Self {
            text: Some(&question.question),
            category: Some(&question.question_category),
            scene_name: question.scene_name.as_deref(),
            video_stem: stem,
        }
    }

    /// The same without what the question itself says: what all questions of the video share.
    pub fn without_question(self) -> Self {
        Self { text: None, category: None, ..self }
    }
}

/// What one key frame tells, and what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caption {
    /// The frame's index in the video, or in the tour of a scene that has no video.
    pub index: usize,
    /// When the frame is shown, in seconds; `None` where there is no video.
    pub time_s: Option<f64>,
    /// The movement since the key frame before; `None` for the first one, or where it is not known.
    pub action: Option<String>,
    /// What is seen.
    pub view: String,
    /// Tokens of the requests, images included, where a model was asked and says so.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the replies, where a model was asked and says so.
    pub completion_tokens: Option<u64>,
    /// How often a model was asked; 0 where none was needed.
    pub attempts: u32,
    /// From asking the model to its reply, in seconds; 0 where none was needed.
    pub elapsed_s: f64,
    /// What is wrong with the caption, though a second reply was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Whether all replies were there already, from an earlier run or another question.
    #[serde(skip)]
    pub from_cache: bool,
}

/// What may be wrong with a caption that is taken all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// The reply was not in the form that was asked for: its whole text is the view.
    Malformed,
    /// The reply was cut off at the limit of tokens.
    Truncated,
}

/// The language model's prompt: the captions as a text, then the question.
pub fn prompt(captions: &[Caption], question: &str) -> String {
    let frames: Vec<FrameText> = captions
        .iter()
        .map(|caption| FrameText { action: caption.action.clone(), view: caption.view.clone() })
        .collect();
    prompts::perceived(&frames, question)
}
