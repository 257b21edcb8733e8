//! One question's work: its key frames, each with a request, and another one where that went wrong.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use embodied_r_openai::{ChatReply, ChatRequest, Content, Ending, Message, Role};
use futures_util::future::join_all;

use super::super::replies::{Key, Reply};
use super::reply::{self, Told};
use super::{Asked, Caption, ChatModel, Footage, ModelCaptions, Refused, prompts};
use crate::captioner::{Fault, KeyFrame};
use crate::error::{Error, Result};

/// What a filter's refusal is kept as, in the word of servers that refuse in a reply.
const FILTERED: &str = "content_filter";

/// The key frames of one question.
pub(super) struct Job<'a, M> {
    captioner: &'a ModelCaptions<M>,
    /// The question's text, if there is one.
    question: Option<&'a str>,
    footage: &'a Footage,
    key_frames: &'a [KeyFrame],
    /// Why the question fails. What is not sent by then is not sent any more, and what is on its way
    /// is waited for, since it will be paid.
    error: OnceLock<Error>,
}

/// What is wrong with a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    Refused,
    Empty,
    Fault(Fault),
}

impl<'a, M: ChatModel> Job<'a, M> {
    pub(super) async fn new(
        captioner: &'a ModelCaptions<M>,
        asked: Asked<'a>,
        footage: &'a Footage,
    ) -> Result<Self> {
        let key_frames = footage.key_frames().await?;
        let error = OnceLock::new();
        Ok(Self { captioner, question: asked.text, footage, key_frames, error })
    }

    /// All captions, in order.
    pub(super) async fn captions(self) -> Result<Vec<Caption>> {
        let captions = (0..self.key_frames.len()).map(async |i| match self.caption(i).await {
            Ok(caption) => caption,
            Err(error) => {
                // The first one counts.
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

    /// One frame's caption; `None` where another frame has failed.
    async fn caption(&self, i: usize) -> Result<Option<Caption>> {
        let request = self.request(i).await?;
        let Some(first) = self.reply(i, &request).await? else { return Ok(None) };
        let flaw = flaw(&first, i);
        let second = match flaw.and_then(|flaw| second(&request, &first, flaw)) {
            None => None,
            Some(request) => {
                let Some(second) = self.reply(i, &request).await? else { return Ok(None) };
                Some(second)
            }
        };
        self.choose(i, first, second).map(Some)
    }

    /// The request about a frame, with names in place of pictures.
    async fn request(&self, i: usize) -> Result<ChatRequest> {
        let mut content = Vec::with_capacity(3);
        for &frame in &self.key_frames[i.saturating_sub(1)..=i] {
            content.push(Content::Image(self.footage.picture_name(frame).await?));
        }
        content.push(Content::Text(match i {
            0 => prompts::first_view(self.question),
            _ => prompts::next_view(self.question),
        }));
        let message = Message { role: Role::User, content };
        let options = &self.captioner.options;
        Ok(ChatRequest {
            temperature: options.temperature,
            max_tokens: options.max_tokens,
            ..ChatRequest::new(&options.model, vec![message])
        })
    }

    /// The reply to a request, from an earlier run or from the model; `None` where another frame has
    /// failed meanwhile.
    async fn reply(&self, i: usize, request: &ChatRequest) -> Result<Option<Reply>> {
        let ModelCaptions { chat, replies, requests, spending, options, .. } = self.captioner;
        let key = self.key(request)?;
        // Questions of the same words are asked once.
        let _alone = replies.turn(key).await;
        let keep = |reply: &Reply| reply.refusal.is_none() || options.refused == Refused::Keep;
        if let Some(reply) = replies.get(key).filter(keep) {
            self.captioner.from_cache.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(Reply { from_cache: true, ..reply }));
        }
        // The semaphore is never closed.
        let _turn = requests.acquire().await.ok();
        let room = spending.reserve(if i == 0 { 1 } else { 2 }).await?;
        if self.error.get().is_some() {
            return Ok(None);
        }
        if options.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let jpegs = &self.footage.jpegs().await?[i.saturating_sub(1)..=i];
        let reply = match chat.chat(request, jpegs).await {
            Ok(reply) => {
                room.settle(reply.usage)?;
                kept(reply)
            }
            Err(Error::Chat(embodied_r_openai::Error::Refused { why, .. })) => filtered(why),
            Err(error) => return Err(error),
        };
        // Nothing is not worth keeping: the next run may get more.
        if flaw(&reply, i) != Some(Flaw::Empty) {
            replies.put(key, &options.model, &reply)?;
        }
        Ok(Some(reply))
    }

    /// What a reply is found again by: the request, and what else the model depends on.
    fn key(&self, request: &ChatRequest) -> Result<Key> {
        let unwritten = embodied_r_openai::Error::Request;
        let mut words = serde_json::to_vec(request).map_err(unwritten)?;
        let settings = self.captioner.chat.settings();
        words.extend(serde_json::to_vec(&settings).map_err(unwritten)?);
        Ok(Key::of(&words))
    }

    /// The better one of a frame's replies, which is the second unless that is worse.
    fn choose(&self, i: usize, first: Reply, second: Option<Reply>) -> Result<Caption> {
        let frame = self.key_frames[i];
        let took = [Some(&first), second.as_ref()].into_iter().flatten().collect::<Vec<_>>();
        let sum = |tokens: fn(&Reply) -> Option<u64>| took.iter().map(|reply| tokens(reply)).sum();
        let prompt_tokens = sum(|reply| reply.prompt_tokens);
        let completion_tokens = sum(|reply| reply.completion_tokens);
        let attempts = took.iter().map(|reply| reply.attempts).sum();
        let from_cache = took.iter().all(|reply| reply.from_cache);
        let elapsed_s = took.iter().map(|reply| reply.elapsed_s).sum();
        let usable = |reply: &Reply| !matches!(flaw(reply, i), Some(Flaw::Refused | Flaw::Empty));
        let reply = match second {
            Some(second) if usable(&second) || !usable(&first) => second,
            _ => first,
        };
        let index = frame.index;
        let fault = match flaw(&reply, i) {
            Some(Flaw::Refused) => {
                let why = reply.refusal.unwrap_or(reply.text);
                return Err(Error::ModelRefuses { index, why });
            }
            Some(Flaw::Empty) => {
                return Err(Error::EmptyReply { index, reason: reply.finish_reason });
            }
            Some(Flaw::Fault(fault)) => Some(fault),
            None => None,
        };
        let Told { action, view } = told(&reply.text, i);
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

/// What the reply about a frame says.
fn told(text: &str, i: usize) -> Told {
    match i {
        0 => Told { action: None, view: reply::plain(text) },
        _ => reply::parse(text),
    }
}

/// What is wrong with the reply about a frame.
fn flaw(reply: &Reply, i: usize) -> Option<Flaw> {
    if reply.refusal.is_some() {
        return Some(Flaw::Refused);
    }
    let Told { action, view } = told(&reply.text, i);
    if view.is_empty() {
        return Some(Flaw::Empty);
    }
    if reply.finish_reason.as_deref() == Some("length") {
        return Some(Flaw::Fault(Fault::Truncated));
    }
    (i > 0 && action.is_none()).then_some(Flaw::Fault(Fault::Malformed))
}

/// What to ask after a reply with a flaw; `None` where it would not help.
fn second(request: &ChatRequest, first: &Reply, flaw: Flaw) -> Option<ChatRequest> {
    let mut request = request.clone();
    let cut_off = first.finish_reason.as_deref() == Some("length");
    match flaw {
        Flaw::Refused => None,
        // Where the limit is the server's own, the reply would be cut off again.
        Flaw::Empty | Flaw::Fault(Fault::Truncated) if cut_off => {
            request.max_tokens = Some(request.max_tokens?.saturating_mul(2));
            Some(request)
        }
        Flaw::Empty => Some(request),
        Flaw::Fault(_) => {
            request.messages.push(Message::assistant(&first.text));
            request.messages.push(Message::user(prompts::form()));
            Some(request)
        }
    }
}

/// A model's reply as it is kept.
fn kept(reply: ChatReply) -> Reply {
    let refusal = (reply.ending() == Ending::Refused).then(|| {
        let words = reply.refusal.as_deref().unwrap_or(&reply.text).trim();
        match words {
            "" => "a content filter stopped the reply".to_owned(),
            words => words.to_owned(),
        }
    });
    Reply {
        text: reply.text,
        finish_reason: reply.finish_reason,
        refusal,
        prompt_tokens: reply.usage.map(|usage| usage.prompt_tokens),
        completion_tokens: reply.usage.map(|usage| usage.completion_tokens),
        attempts: reply.attempts,
        elapsed_s: (reply.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        from_cache: false,
    }
}

/// A filter's refusal of a request, which cost nothing.
fn filtered(why: String) -> Reply {
    Reply {
        text: String::new(),
        finish_reason: Some(FILTERED.to_owned()),
        refusal: Some(why),
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

    fn reply(text: &str, finish_reason: &str) -> Reply {
        let finish_reason = Some(finish_reason.to_owned());
        Reply { finish_reason, refusal: None, text: text.to_owned(), ..filtered(String::new()) }
    }

    fn request(max_tokens: Option<u32>) -> ChatRequest {
        ChatRequest { max_tokens, ..ChatRequest::new("m", vec![Message::user("look")]) }
    }

    fn asked_next(first: &Reply, max_tokens: Option<u32>) -> Option<ChatRequest> {
        second(&request(max_tokens), first, flaw(first, 1)?)
    }

    #[test]
    fn a_good_reply_is_not_asked_for_again() {
        assert!(asked_next(&reply("1. Move left\n2. a\n3. b", "stop"), None).is_none());
        assert!(flaw(&reply("A lamp.", "stop"), 0).is_none());
    }

    #[test]
    fn a_reply_of_another_form_is_corrected_in_the_same_conversation() {
        let request = asked_next(&reply("A lamp.", "stop"), None).unwrap();
        let words: Vec<&[Content]> =
            request.messages.iter().map(|message| message.content.as_slice()).collect();
        assert_eq!(words[1], [Content::Text("A lamp.".into())]);
        assert_eq!(words[2], [Content::Text(prompts::form())]);
        assert_eq!(words.len(), 3);
    }

    #[test]
    fn a_reply_that_was_cut_off_gets_twice_the_tokens_where_the_limit_is_ours() {
        let cut = reply("1. Move left\n2. a red", "length");
        assert_eq!(asked_next(&cut, Some(100)), Some(request(Some(200))));
        assert_eq!(asked_next(&cut, None), None);
    }

    #[test]
    fn an_empty_reply_is_asked_for_again_in_the_same_words() {
        assert_eq!(asked_next(&reply(" \n", "stop"), None), Some(request(None)));
    }

    #[test]
    fn a_refusal_is_not_asked_again() {
        let refusal = Some("no".to_owned());
        assert!(asked_next(&Reply { refusal, ..reply("", "stop") }, None).is_none());
    }
}
