//! Captions from a vision-language model, behind an OpenAI-compatible API or in this process.

mod captioner;
mod job;
mod local;
mod prompts;
mod remote;
mod response;

use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

use super::{Caption, CaptionRequest, Captioner, VideoFrames};
use crate::error::Result;
pub use captioner::{ChatModel, ModelCaptioner, ModelOptions, RefusalPolicy};
use job::CaptionJob;
pub use local::LocalModel;
pub use remote::RemoteModel;

impl<M: ChatModel> Captioner for ModelCaptioner<M> {
    fn settings(&self) -> Map<String, Value> {
        let ModelOptions { model, temperature, max_tokens, .. } = &self.options;
        let mut settings = self.chat.settings();
        settings.insert("model".to_owned(), json!(model));
        settings.insert("temperature".to_owned(), json!(temperature));
        settings.insert("max_tokens".to_owned(), json!(max_tokens));
        settings
    }

    fn status(&self) -> Option<String> {
        let spent = self.totals().1.cost.map(|cost| format!("{cost:.2} spent"));
        let parts: Vec<String> = spent.into_iter().chain(self.chat.status()).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    fn caption<'a>(
        &'a self,
        request: CaptionRequest<'a>,
        video_frames: &'a VideoFrames,
    ) -> BoxFuture<'a, Result<Vec<Caption>>> {
        async move { CaptionJob::new(self, request, video_frames).await?.captions().await }.boxed()
    }
}
