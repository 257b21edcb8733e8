//! Captions for key frames.
//!
//! A [`Captioner`] takes a question without its answer ([`CaptionRequest`]), or no question if captions serve all
//! questions of a video, and the video ([`VideoFrames`]), and returns one [`Caption`] per key frame. [`ModelCaptioner`]
//! prompts a vision-language model: behind an OpenAI-compatible API ([`RemoteModel`]) or in this process
//! ([`LocalModel`]). [`SceneCaptioner`] generates ground-truth captions from 3-D annotations.

mod completion_cache;
mod cost;
mod frame_image;
mod model;
mod scene;
mod video_frames;

use embodied_r_data::Question;
use embodied_r_data::prompts::{self, CaptionStyle, FrameText};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Result;

pub use cost::{CostReservation, CostTracker, TokenPrices, UsageTotals};
pub use frame_image::{FrameImage, ImageForm};
pub use model::{ChatModel, LocalModel, ModelCaptioner, ModelOptions, RefusalPolicy, RemoteModel};
pub use scene::SceneCaptioner;
pub use video_frames::{DecodeLimit, KeyFrame, VideoFrames};

/// Generates captions; called concurrently for several questions.
pub trait Captioner: Sync {
    /// All settings that captions depend on apart from video and question, such as the model's name.
    fn settings(&self) -> Map<String, Value>;

    /// Checks whether a question can be captioned, before any work on its video.
    ///
    /// # Errors
    /// The captioner's annotations cannot support such a question.
    fn check(&self, _request: CaptionRequest<'_>) -> Result<()> {
        Ok(())
    }

    /// The captioner's metrics for the progress line.
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
        request: CaptionRequest<'a>,
        video_frames: &'a VideoFrames,
    ) -> BoxFuture<'a, Result<Vec<Caption>>>;
}

/// What a captioner may know about a question: everything but the answer.
#[derive(Debug, Clone, Copy)]
pub struct CaptionRequest<'a> {
    /// The question and its choices; `None` if the captions serve all questions of the video.
    pub text: Option<&'a str>,
    /// The benchmark's category; `None` without a text.
    pub category: Option<&'a str>,
    /// The scene of the video.
    pub scene_name: Option<&'a str>,
    /// The video's file name without extension.
    pub video_stem: Option<&'a str>,
}

impl<'a> CaptionRequest<'a> {
    /// The request for `question`.
    pub fn from_question(question: &'a Question) -> Self {
        let file = question.video_id.as_deref().or(question.videos.as_deref());
        let stem = file.and_then(|file| std::path::Path::new(file).file_stem()?.to_str());
        Self {
            text: Some(&question.question),
            category: Some(&question.question_category),
            scene_name: question.scene_name.as_deref(),
            video_stem: stem,
        }
    }

    /// The request without text and category: what all questions of the video share.
    pub fn without_question(self) -> Self {
        Self { text: None, category: None, ..self }
    }
}

/// The caption of one key frame, and its cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caption {
    /// The frame's index in the video, or in the tour of a scene that has no video.
    pub index: usize,
    /// The frame's timestamp in seconds; `None` without a video.
    pub time_s: Option<f64>,
    /// The movement since the previous key frame; `None` for the first one, or if unknown.
    pub action: Option<String>,
    /// What the frame shows.
    pub view: String,
    /// Prompt tokens, images included, if a model was prompted and reports them.
    pub prompt_tokens: Option<u64>,
    /// Completion tokens, if a model was prompted and reports them.
    pub completion_tokens: Option<u64>,
    /// Requests sent to a model; 0 without a model.
    pub attempts: u32,
    /// Latency of the requests in seconds; 0 without a model.
    pub elapsed_s: f64,
    /// What is wrong with the caption after a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<CaptionFault>,
    /// Whether all completions came from the cache.
    #[serde(skip)]
    pub from_cache: bool,
}

/// A fault of a caption that is used nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CaptionFault {
    /// The completion does not follow the requested format; its whole text is the view.
    Malformed,
    /// The completion was truncated at the token limit.
    Truncated,
}

/// What captions of a captioner with these [`Captioner::settings`] are like.
pub fn style(settings: &Map<String, Value>) -> CaptionStyle {
    match settings.get(scene::BACKEND.0).and_then(Value::as_str) == Some(scene::BACKEND.1) {
        true => CaptionStyle::Bearings,
        false => CaptionStyle::Prose,
    }
}

/// The language model's prompt: the captions as text, then the question.
pub fn prompt(captions: &[Caption], question: &str, style: CaptionStyle) -> String {
    let frames: Vec<FrameText> = captions
        .iter()
        .map(|caption| FrameText { action: caption.action.clone(), view: caption.view.clone() })
        .collect();
    prompts::perceived_prompt(&frames, question, style)
}
