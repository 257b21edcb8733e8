//! A judge behind an OpenAI-compatible chat API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use embodied_r_openai::{ChatCompletionMessage, ChatCompletionRequest, Client, ClientOptions};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::judge::{Judge, JudgePrompt};
use crate::service::block_on_until;

/// Options of an [`HttpJudge`].
#[derive(Debug, Clone)]
pub struct HttpJudgeOptions {
    /// Servers, API key, timeout and retries.
    pub client: ClientOptions,
    /// The model's name on the servers.
    pub model: String,
    /// Sampling temperature.
    pub temperature: f64,
    /// Maximum tokens of a reply; one letter is expected.
    pub max_tokens: u32,
    /// Maximum concurrent requests.
    pub concurrency: usize,
}

impl HttpJudgeOptions {
    /// The official run's settings (temperature 0.1, ten tokens) with 16 concurrent requests.
    pub fn new(client: ClientOptions, model: impl Into<String>) -> Self {
        Self { client, model: model.into(), temperature: 0.1, max_tokens: 10, concurrency: 16 }
    }
}

/// A judge behind an OpenAI-compatible chat API. It owns an async runtime and blocks on replies,
/// so it must be called and dropped on threads outside any async runtime.
#[derive(Debug)]
pub struct HttpJudge {
    runtime: Runtime,
    client: Arc<Client>,
    options: HttpJudgeOptions,
}

impl HttpJudge {
    /// Creates a judge without sending anything.
    ///
    /// # Errors
    /// [`Error::Judge`] for invalid base URLs, or if the runtime cannot start.
    pub fn new(options: HttpJudgeOptions) -> Result<Self> {
        let client = Arc::new(Client::new(&options.client).map_err(Error::judge)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Error::judge)?;
        Ok(Self { runtime, client, options })
    }

    fn request(&self, prompt: &JudgePrompt) -> ChatCompletionRequest {
        let messages = vec![
            ChatCompletionMessage::system(&prompt.system),
            ChatCompletionMessage::user(&prompt.user),
        ];
        ChatCompletionRequest {
            temperature: Some(self.options.temperature),
            max_tokens: Some(self.options.max_tokens),
            ..ChatCompletionRequest::new(&self.options.model, messages)
        }
    }
}

impl Judge for HttpJudge {
    /// # Errors
    /// [`Error::Judge`] if the server rejects every request (unknown model, wrong key) or has answered none of them
    /// after their retries, and [`Error::BlockingCall`] on a thread that drives an async runtime. A single request
    /// that fails is logged and gives `None`.
    fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
        self.reply_until(prompts, &AtomicBool::new(false))
    }

    fn reply_until(
        &self,
        prompts: &[JudgePrompt],
        stop: &AtomicBool,
    ) -> Result<Vec<Option<String>>> {
        if Handle::try_current().is_ok() {
            return Err(Error::BlockingCall);
        }
        let requests: Arc<[ChatCompletionRequest]> =
            prompts.iter().map(|prompt| self.request(prompt)).collect();
        let replies = send_all(&self.client, requests, self.options.concurrency.max(1));
        let replies = block_on_until(&self.runtime, replies, stop).ok_or(Error::Interrupted)??;
        if let Some(error) = no_answer(&replies) {
            return Err(Error::judge(format!(
                "no response to any of {} requests: {error}",
                replies.len()
            )));
        }
        Ok(replies.into_iter().map(|reply| reply?.ok()).collect())
    }
}

/// A request's reply or error; `None` before it is sent.
type Reply = Option<Result<String, embodied_r_openai::Error>>;

/// The last error, if the server has answered no request at all. A request that it refuses is answered.
fn no_answer(replies: &[Reply]) -> Option<&embodied_r_openai::Error> {
    let failed = |reply: &'_ Reply| matches!(reply, Some(Err(error)) if error.is_retryable());
    let last = replies.last()?.as_ref()?.as_ref().err();
    last.filter(|_| replies.iter().all(failed))
}

/// Sends all requests, `concurrency` at a time, and returns the replies in request order.
async fn send_all(
    client: &Arc<Client>,
    requests: Arc<[ChatCompletionRequest]>,
    concurrency: usize,
) -> Result<Vec<Reply>> {
    let mut replies: Vec<Reply> = requests.iter().map(|_| None).collect();
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.min(requests.len()) {
        workers.spawn(worker(Arc::clone(client), Arc::clone(&requests), Arc::clone(&next)));
    }
    // An early return drops the set, which aborts the other workers.
    while let Some(done) = workers.join_next().await {
        for (index, reply) in done.map_err(Error::judge)?? {
            replies[index] = Some(reply);
        }
    }
    Ok(replies)
}

/// Sends requests until none are left.
async fn worker(
    client: Arc<Client>,
    requests: Arc<[ChatCompletionRequest]>,
    next: Arc<AtomicUsize>,
) -> Result<Vec<(usize, Result<String, embodied_r_openai::Error>)>> {
    let mut replies = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(index) else {
            return Ok(replies);
        };
        let reply = client.chat(request).await.map(|reply| reply.text);
        if let Err(error) = &reply {
            tracing::warn!("judge request failed: {error}");
        }
        match reply {
            Err(error) if error.fails_every_request() => return Err(Error::judge(error)),
            reply => replies.push((index, reply)),
        }
    }
}

#[cfg(test)]
mod tests;
