//! Captions of a vision-language model behind an OpenAI-compatible API.

mod prompts;
mod reply;

use embodied_r_openai::{ChatRequest, Client, ClientOptions, Content, Message, Role};
use futures_util::future::{BoxFuture, FutureExt as _, try_join_all};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::{Asked, Caption, Captioner, Footage};
use crate::error::{Error, Result};
use reply::Told;

/// How the model is asked.
#[derive(Debug, Clone)]
pub struct OpenAiOptions {
    /// Servers, key, time-out and retries.
    pub client: ClientOptions,
    /// The name that the servers know the model by.
    pub model: String,
    /// Sampling temperature; `None` leaves it to the server.
    pub temperature: Option<f64>,
    /// The most tokens of a reply; `None` leaves it to the server.
    pub max_tokens: Option<u32>,
    /// Requests on their way at the same time.
    pub concurrency: usize,
}

/// Asks a model about each key frame: the first one alone, each other one beside the one before.
#[derive(Debug)]
pub struct OpenAi {
    client: Client,
    requests: Semaphore,
    options: OpenAiOptions,
}

impl OpenAi {
    /// A captioner; nothing is sent yet.
    ///
    /// # Errors
    /// A base URL is missing or is not one.
    pub fn new(options: OpenAiOptions) -> Result<Self> {
        let client = Client::new(&options.client)?;
        Ok(Self { client, requests: Semaphore::new(options.concurrency.max(1)), options })
    }

    async fn all(&self, asked: Asked<'_>, footage: &Footage) -> Result<Vec<Caption>> {
        let key_frames = footage.key_frames().await?;
        let jpegs = footage.jpegs().await?;
        let captions = jpegs.iter().enumerate().map(async |(i, after)| {
            let before = i.checked_sub(1).map(|previous| &jpegs[previous]);
            let reply = self.ask(asked.text, before, after).await?;
            let Told { action, view } = match before {
                None => Told { action: None, view: reply::plain(&reply.text) },
                Some(_) => reply::parse(&reply.text),
            };
            let frame = key_frames[i];
            if view.is_empty() {
                return Err(Error::EmptyReply { index: frame.index, reason: reply.finish_reason });
            }
            Ok(Caption {
                index: frame.index,
                time_s: Some(frame.time_s),
                action,
                view,
                prompt_tokens: reply.usage.map(|usage| usage.prompt_tokens),
                completion_tokens: reply.usage.map(|usage| usage.completion_tokens),
                attempts: reply.attempts,
                elapsed_s: (reply.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            })
        });
        try_join_all(captions).await
    }

    /// Sends one frame, or two consecutive ones.
    async fn ask(
        &self,
        question: &str,
        before: Option<&Vec<u8>>,
        after: &[u8],
    ) -> Result<embodied_r_openai::ChatReply> {
        // The semaphore is never closed.
        let _turn = self.requests.acquire().await.ok();
        let instructions = match before {
            None => prompts::first_view(question),
            Some(_) => prompts::next_view(question),
        };
        let pictures = before.map(Vec::as_slice).into_iter().chain([after]).map(Content::jpeg);
        let content = pictures.chain([Content::Text(instructions)]).collect();
        let message = Message { role: Role::User, content };
        let request = ChatRequest {
            temperature: self.options.temperature,
            max_tokens: self.options.max_tokens,
            ..ChatRequest::new(&self.options.model, vec![message])
        };
        Ok(self.client.chat(&request).await?)
    }
}

impl Captioner for OpenAi {
    fn settings(&self) -> Map<String, Value> {
        let OpenAiOptions { model, temperature, max_tokens, .. } = &self.options;
        Map::from_iter([
            ("backend".to_owned(), json!("openai")),
            ("model".to_owned(), json!(model)),
            ("temperature".to_owned(), json!(temperature)),
            ("max_tokens".to_owned(), json!(max_tokens)),
        ])
    }

    fn caption<'a>(
        &'a self,
        asked: Asked<'a>,
        footage: &'a Footage,
    ) -> BoxFuture<'a, Result<Vec<Caption>>> {
        self.all(asked, footage).boxed()
    }
}
