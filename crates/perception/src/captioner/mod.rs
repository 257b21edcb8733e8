//! Turning key frames into words.
//!
//! A [`Captioner`] gets the question without its answer ([`Asked`]) and the video ([`Footage`]),
//! and returns one [`Caption`] per key frame. [`OpenAi`] asks a vision-language model behind an
//! OpenAI-compatible API; [`SceneCaptions`] tells the truth from 3-D annotations.

mod footage;
mod openai;
mod scene;

use embodied_r_data::Question;
use embodied_r_data::prompts::{self, FrameText};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Result;

pub use footage::{Decoders, Footage, KeyFrame};
pub use openai::{OpenAi, OpenAiOptions};
pub use scene::SceneCaptions;

/// Makes captions. Calls come from several questions at once.
pub trait Captioner: Sync {
    /// Everything beside video and question that captions depend on, such as the model's name.
    fn settings(&self) -> Map<String, Value>;

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
    /// The question and its choices.
    pub text: &'a str,
    /// The benchmark's category.
    pub category: &'a str,
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
            text: &question.question,
            category: &question.question_category,
            scene_name: question.scene_name.as_deref(),
            video_stem: stem,
        }
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
    /// Tokens of the request, images included, where a model was asked and says so.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the reply, where a model was asked and says so.
    pub completion_tokens: Option<u64>,
    /// How often a model was asked; 0 where none was needed.
    pub attempts: u32,
    /// From asking the model to its reply, in seconds; 0 where none was needed.
    pub elapsed_s: f64,
}

/// The language model's prompt: the captions as a text, then the question.
pub fn prompt(captions: &[Caption], question: &str) -> String {
    let frames: Vec<FrameText> = captions
        .iter()
        .map(|caption| FrameText { action: caption.action.clone(), view: caption.view.clone() })
        .collect();
    prompts::perceived(&frames, question)
}
