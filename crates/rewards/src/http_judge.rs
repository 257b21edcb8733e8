//! A judge behind an OpenAI-compatible chat API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use embodied_r_openai::{ChatRequest, Client, ClientOptions, Message};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::judge::{Judge, JudgePrompt};

/// How an [`HttpJudge`] asks.
#[derive(Debug, Clone)]
pub struct HttpJudgeOptions {
    /// Servers, key, time limit and retries.
    pub client: ClientOptions,
    /// The name that the servers know the model by.
    pub model: String,
    /// Sampling temperature.
    pub temperature: f64,
    /// The most tokens of a reply; one letter is expected.
    pub max_tokens: u32,
    /// Requests under way at the same time.
    pub concurrency: usize,
}

impl HttpJudgeOptions {
    /// The settings of the official run, temperature 0.1 and ten tokens, with 16 requests at a time.
    pub fn new(client: ClientOptions, model: impl Into<String>) -> Self {
        Self { client, model: model.into(), temperature: 0.1, max_tokens: 10, concurrency: 16 }
    }
}

/// A judge behind an OpenAI-compatible chat API. It owns an async runtime and waits for the
/// replies, so it is asked, and dropped, from plain threads only.
#[derive(Debug)]
pub struct HttpJudge {
    runtime: Runtime,
    client: Arc<Client>,
    options: HttpJudgeOptions,
}

impl HttpJudge {
    /// A judge; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Judge`] for base URLs that are none, or where no runtime is to be had.
    pub fn new(options: HttpJudgeOptions) -> Result<Self> {
        let client = Arc::new(Client::new(&options.client).map_err(Error::judge)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Error::judge)?;
        Ok(Self { runtime, client, options })
    }

    fn request(&self, prompt: &JudgePrompt) -> ChatRequest {
        let messages = vec![Message::system(&prompt.system), Message::user(&prompt.user)];
        ChatRequest {
            temperature: Some(self.options.temperature),
            max_tokens: Some(self.options.max_tokens),
            ..ChatRequest::new(&self.options.model, messages)
        }
    }
}

impl Judge for HttpJudge {
    /// # Errors
    /// [`Error::Judge`] where the server refuses everyone (no such model, wrong key), and
    /// [`Error::Async`] on a thread that drives an async runtime. A request that fails otherwise,
    /// after its retries, is logged and leaves its reply out.
    fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
        if Handle::try_current().is_ok() {
            return Err(Error::Async);
        }
        let requests: Arc<[ChatRequest]> =
            prompts.iter().map(|prompt| self.request(prompt)).collect();
        self.runtime.block_on(ask_all(&self.client, requests, self.options.concurrency.max(1)))
    }
}

/// Sends all requests, `concurrency` at a time, and gives the replies in the requests' order.
async fn ask_all(
    client: &Arc<Client>,
    requests: Arc<[ChatRequest]>,
    concurrency: usize,
) -> Result<Vec<Option<String>>> {
    let mut replies = vec![None; requests.len()];
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.min(requests.len()) {
        workers.spawn(work(Arc::clone(client), Arc::clone(&requests), Arc::clone(&next)));
    }
    // Leaving early drops the set, which ends the other workers.
    while let Some(done) = workers.join_next().await {
        for (index, reply) in done.map_err(Error::judge)?? {
            replies[index] = Some(reply);
        }
    }
    Ok(replies)
}

/// Takes one request after the other until none is left.
async fn work(
    client: Arc<Client>,
    requests: Arc<[ChatRequest]>,
    next: Arc<AtomicUsize>,
) -> Result<Vec<(usize, String)>> {
    let mut replies = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(index) else {
            return Ok(replies);
        };
        match client.chat(request).await {
            Ok(reply) => replies.push((index, reply.text)),
            Err(error) if error.refuses_everyone() => return Err(Error::judge(error)),
            Err(error) => tracing::warn!("the judge gave no reply: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
