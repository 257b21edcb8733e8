//! Captioning one question: a request for each key frame, and a retry for defective completions.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use embodied_r_openai::{
    ChatCompletion, ChatCompletionMessage, ChatCompletionRequest, CompletionStatus, ContentPart,
    Role,
};
use futures_util::future::join_all;

use super::super::completion_cache::{CacheKey, CachedCompletion};
use super::captioner::{ChatModel, ModelCaptioner, RefusalPolicy};
use super::prompts;
use super::response::{self, ParsedResponse};
use crate::captioner::{Caption, CaptionFault, CaptionRequest, KeyFrame, VideoFrames};
use crate::error::{Error, Result};

/// Finish reason of cached content-filter errors, as in completions.
const FILTERED: &str = "content_filter";

/// The key frames of one question.
pub(super) struct CaptionJob<'a, M> {
    captioner: &'a ModelCaptioner<M>,
    /// The question's text, if any.
    question: Option<&'a str>,
    video_frames: &'a VideoFrames,
    key_frames: &'a [KeyFrame],
    /// The first error. After it no more requests are sent; those in flight are awaited, since they
    /// will be billed.
    error: OnceLock<Error>,
}

/// A defect of a completion.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Defect {
    Refused,
    Empty,
    Fault(CaptionFault),
}

impl<'a, M: ChatModel> CaptionJob<'a, M> {
    pub(super) async fn new(
        captioner: &'a ModelCaptioner<M>,
        request: CaptionRequest<'a>,
        video_frames: &'a VideoFrames,
    ) -> Result<Self> {
        let key_frames = video_frames.key_frames().await?;
        let error = OnceLock::new();
        Ok(Self { captioner, question: request.text, video_frames, key_frames, error })
    }

    /// All captions, in order.
    pub(super) async fn captions(self) -> Result<Vec<Caption>> {
        let captions = (0..self.key_frames.len()).map(async |i| match self.caption(i).await {
            Ok(caption) => caption,
            Err(error) => {
                // Only the first error is kept.
                let _ = self.error.set(error);
                None
            }
        });
        let captions = join_all(captions).await;
        match self.error.into_inner() {
            Some(error) => Err(error),
            None => Ok(captions.into_iter().flatten().collect()),
        }
    }

    /// One frame's caption; `None` if another frame has failed.
    async fn caption(&self, i: usize) -> Result<Option<Caption>> {
        let request = self.request(i).await?;
        let Some(first) = self.complete(i, &request).await? else { return Ok(None) };
        let defect = defect(&first, i);
        let second = match defect.and_then(|defect| retry_request(&request, &first, defect)) {
            None => None,
            Some(request) => {
                let Some(second) = self.complete(i, &request).await? else { return Ok(None) };
                Some(second)
            }
        };
        self.select(i, first, second).map(Some)
    }

    /// The request for a frame, with identifiers in place of images.
    async fn request(&self, i: usize) -> Result<ChatCompletionRequest> {
        let form = self.captioner.chat.image_form();
        let mut content = Vec::with_capacity(3);
        for &frame in &self.key_frames[i.saturating_sub(1)..=i] {
            let id = self.video_frames.image_id(frame, form).await?;
            content.push(ContentPart::Image(id));
        }
        content.push(ContentPart::Text(match i {
            0 => prompts::first_view(self.question),
            _ => prompts::next_view(self.question),
        }));
        let message = ChatCompletionMessage { role: Role::User, content };
        let options = &self.captioner.options;
        Ok(ChatCompletionRequest {
            temperature: options.temperature,
            max_tokens: options.max_tokens,
            ..ChatCompletionRequest::new(&options.model, vec![message])
        })
    }

    /// The completion of a request, from the cache or the model; `None` if another frame has failed
    /// meanwhile.
    async fn complete(
        &self,
        i: usize,
        request: &ChatCompletionRequest,
    ) -> Result<Option<CachedCompletion>> {
        let ModelCaptioner { chat, completions, requests, cost, options, .. } = self.captioner;
        let key = self.key(request)?;
        // Identical requests are sent once.
        let _lock = completions.lock(key).await;
        let may_use = |completion: &CachedCompletion| {
            completion.refusal.is_none() || options.refusal_policy == RefusalPolicy::Keep
        };
        if let Some(completion) = completions.get(key).filter(may_use) {
            self.captioner.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(CachedCompletion { from_cache: true, ..completion }));
        }
        // The semaphore is never closed.
        let _permit = requests.acquire().await.ok();
        let reservation = cost.reserve(if i == 0 { 1 } else { 2 }).await?;
        if self.error.get().is_some() {
            return Ok(None);
        }
        if options.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let images = &self.video_frames.images().await?[i.saturating_sub(1)..=i];
        let completion = match chat.chat(request, images).await {
            Ok(completion) => {
                reservation.settle(completion.usage)?;
                to_cached(completion)
            }
            Err(Error::Chat(embodied_r_openai::Error::ContentFiltered { reason, .. })) => {
                content_filtered(reason)
            }
            Err(error) => return Err(error),
        };
        // Empty completions are not cached: the next run may get more.
        if defect(&completion, i) != Some(Defect::Empty) {
            completions.put(key, &options.model, &completion)?;
        }
        Ok(Some(completion))
    }

    /// The cache key: the request and the model's settings.
    fn key(&self, request: &ChatCompletionRequest) -> Result<CacheKey> {
        let serialize = embodied_r_openai::Error::SerializeRequest;
        let mut bytes = serde_json::to_vec(request).map_err(serialize)?;
        let settings = self.captioner.chat.settings();
        bytes.extend(serde_json::to_vec(&settings).map_err(serialize)?);
        Ok(CacheKey::of(&bytes))
    }

    /// The better completion of a frame: the second, unless only the first is usable.
    fn select(
        &self,
        i: usize,
        first: CachedCompletion,
        second: Option<CachedCompletion>,
    ) -> Result<Caption> {
        let frame = self.key_frames[i];
        let all = [Some(&first), second.as_ref()].into_iter().flatten().collect::<Vec<_>>();
        let sum = |tokens: fn(&CachedCompletion) -> Option<u64>| {
            all.iter().map(|completion| tokens(completion)).sum()
        };
        let prompt_tokens = sum(|completion| completion.prompt_tokens);
        let completion_tokens = sum(|completion| completion.completion_tokens);
        let attempts = all.iter().map(|completion| completion.attempts).sum();
        let from_cache = all.iter().all(|completion| completion.from_cache);
        let elapsed_s = all.iter().map(|completion| completion.elapsed_s).sum();
        let usable = |completion: &CachedCompletion| {
            !matches!(defect(completion, i), Some(Defect::Refused | Defect::Empty))
        };
        let completion = match second {
            Some(second) if usable(&second) || !usable(&first) => second,
            _ => first,
        };
        let index = frame.index;
        let fault = match defect(&completion, i) {
            Some(Defect::Refused) => {
                let reason = completion.refusal.unwrap_or(completion.text);
                return Err(Error::ModelRefusal { index, reason });
            }
            Some(Defect::Empty) => {
                return Err(Error::EmptyCompletion { index, reason: completion.finish_reason });
            }
            Some(Defect::Fault(fault)) => Some(fault),
            None => None,
        };
        let ParsedResponse { action, view } = parse(&completion.text, i);
        let time_s = Some(frame.time_s);
        Ok(Caption {
            index,
            time_s,
            action,
            view,
            prompt_tokens,
            completion_tokens,
            attempts,
            elapsed_s,
            fault,
            from_cache,
        })
    }
}

/// Parses the completion of frame `i`.
fn parse(text: &str, i: usize) -> ParsedResponse {
    match i {
        0 => ParsedResponse { action: None, view: response::normalize(text) },
        _ => response::parse(text),
    }
}

/// The defect of the completion of frame `i`.
fn defect(completion: &CachedCompletion, i: usize) -> Option<Defect> {
    if completion.refusal.is_some() {
        return Some(Defect::Refused);
    }
    let ParsedResponse { action, view } = parse(&completion.text, i);
    if view.is_empty() {
        return Some(Defect::Empty);
    }
    if completion.finish_reason.as_deref() == Some("length") {
        return Some(Defect::Fault(CaptionFault::Truncated));
    }
    (i > 0 && action.is_none()).then_some(Defect::Fault(CaptionFault::Malformed))
}

/// The request to retry a defective completion; `None` if a retry would not help.
fn retry_request(
    request: &ChatCompletionRequest,
    first: &CachedCompletion,
    defect: Defect,
) -> Option<ChatCompletionRequest> {
    let mut request = request.clone();
    let is_truncated = first.finish_reason.as_deref() == Some("length");
    match defect {
        Defect::Refused => None,
        // Under the server's own limit the completion would be truncated again.
        Defect::Empty | Defect::Fault(CaptionFault::Truncated) if is_truncated => {
            request.max_tokens = Some(request.max_tokens?.saturating_mul(2));
            Some(request)
        }
        Defect::Empty => Some(request),
        Defect::Fault(_) => {
            request.messages.push(ChatCompletionMessage::assistant(&first.text));
            request.messages.push(ChatCompletionMessage::user(prompts::format_reminder()));
            Some(request)
        }
    }
}

/// A model's completion in the form of the cache.
fn to_cached(completion: ChatCompletion) -> CachedCompletion {
    let refusal = (completion.status() == CompletionStatus::Refused).then(|| {
        let message = completion.refusal.as_deref().unwrap_or(&completion.text).trim();
        match message {
            "" => "a content filter stopped the completion".to_owned(),
            message => message.to_owned(),
        }
    });
    CachedCompletion {
        text: completion.text,
        finish_reason: completion.finish_reason,
        refusal,
        prompt_tokens: completion.usage.map(|usage| usage.prompt_tokens),
        completion_tokens: completion.usage.map(|usage| usage.completion_tokens),
        attempts: completion.attempts,
        elapsed_s: (completion.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        from_cache: false,
    }
}

/// A request rejected by a content filter, at no cost.
fn content_filtered(reason: String) -> CachedCompletion {
    CachedCompletion {
        text: String::new(),
        finish_reason: Some(FILTERED.to_owned()),
        refusal: Some(reason),
        prompt_tokens: None,
        completion_tokens: None,
        attempts: 1,
        elapsed_s: 0.0,
        from_cache: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(text: &str, finish_reason: &str) -> CachedCompletion {
        let finish_reason = Some(finish_reason.to_owned());
        CachedCompletion {
            finish_reason,
            refusal: None,
            text: text.to_owned(),
            ..content_filtered(String::new())
        }
    }

    fn request(max_tokens: Option<u32>) -> ChatCompletionRequest {
        ChatCompletionRequest {
            max_tokens,
            ..ChatCompletionRequest::new("m", vec![ChatCompletionMessage::user("look")])
        }
    }

    fn retried(first: &CachedCompletion, max_tokens: Option<u32>) -> Option<ChatCompletionRequest> {
        retry_request(&request(max_tokens), first, defect(first, 1)?)
    }

    #[test]
    fn a_good_completion_is_not_retried() {
        assert!(retried(&completion("1. Move left\n2. a\n3. b", "stop"), None).is_none());
        assert!(defect(&completion("A lamp.", "stop"), 0).is_none());
    }

    #[test]
    fn a_malformed_completion_is_retried_in_the_same_conversation() {
        let request = retried(&completion("A lamp.", "stop"), None).unwrap();
        let contents: Vec<&[ContentPart]> =
            request.messages.iter().map(|message| message.content.as_slice()).collect();
        assert_eq!(contents[1], [ContentPart::Text("A lamp.".into())]);
        assert_eq!(contents[2], [ContentPart::Text(prompts::format_reminder())]);
        assert_eq!(contents.len(), 3);
    }

    #[test]
    fn a_truncated_completion_is_retried_with_twice_our_own_token_limit() {
        let truncated = completion("1. Move left\n2. a red", "length");
        assert_eq!(retried(&truncated, Some(100)), Some(request(Some(200))));
        assert_eq!(retried(&truncated, None), None);
    }

    #[test]
    fn an_empty_completion_is_retried_with_the_same_request() {
        assert_eq!(retried(&completion(" \n", "stop"), None), Some(request(None)));
    }

    #[test]
    fn a_refusal_is_not_retried() {
        let refusal = Some("no".to_owned());
        assert!(retried(&CachedCompletion { refusal, ..completion("", "stop") }, None).is_none());
    }
}
