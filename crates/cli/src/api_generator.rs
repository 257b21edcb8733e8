//! Batch generation with a model behind an OpenAI-compatible API, for `infer`, `eval`, `filter` and `robot bench`.

mod images;
mod pending;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use embodied_r_data::Progress;
use embodied_r_data::multimodal::SampleSet;
use embodied_r_openai::{
    ApiKey, ChatCompletion, ChatCompletionMessage, ChatCompletionRequest, Client, ClientOptions,
    Error,
};
use embodied_r_policy::SamplingParams;
use embodied_r_random::stream;
use futures_util::{Stream, StreamExt as _};
use serde_json::{Map, Value, json};

use crate::args::api::ApiArgs;
use crate::args::model::DecodingArgs;
use crate::asked::{Asked, BatchPrompt};
use crate::direct::{self, Direct, FEWER_TOKENS};
use crate::exit::{self, Usage};
use crate::interrupt::{interrupted, on_interrupt};
use images::RequestImages;
use pending::Pending;

/// What to do after a run that failed.
pub(crate) const RESUME: &str =
    "finished questions are kept; fix the cause and run the same command again to resume";

const API_KEY_ENV: &str = "OPENAI_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(300);
const MAX_RETRIES: u32 = 5;
const CONCURRENCY: usize = 16;

/// Maximum failures that are printed.
const MAX_PRINTED_FAILURES: usize = 10;
/// Consecutive failed questions after which the run is aborted: all of them before the first response, later those
/// that another attempt may answer.
const MAX_CONSECUTIVE_FAILURES: usize = 8;

/// A model behind an API, with its sampling parameters.
pub(crate) struct ApiGenerator {
    client: Client,
    concurrency: usize,
    model: String,
    decoding: DecodingArgs,
    sampling: SamplingParams,
    /// How the model sees images and videos.
    images: Option<RequestImages>,
    /// Whether the model wants the newer name of the token limit, as OpenAI's reasoning models do.
    has_new_limit: AtomicBool,
}

/// The name of the token limit in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenLimit {
    /// `max_tokens`, which most servers know.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

impl TokenLimit {
    const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";
}

/// The questions without completions.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Their number.
    pub(crate) count: usize,
    /// The first error.
    pub(crate) first: Option<Error>,
}

/// A sample of the question at `position`.
struct Sampled {
    position: usize,
    sample: usize,
    outcome: Outcome,
}

/// What became of a request.
enum Outcome {
    /// It was not sent.
    Unsent,
    /// Its images cannot be read any more.
    Unreadable(anyhow::Error),
    /// The servers answered it, or failed.
    Sent(Result<ChatCompletion, Error>),
}

impl ApiGenerator {
    /// A client of the servers, whose model sees images and videos as `direct` says; nothing is sent yet.
    ///
    /// # Errors
    /// A base URL is not one, or a sampling parameter is out of bounds.
    pub(crate) fn new(
        api: &ApiArgs,
        model: &str,
        decoding: &DecodingArgs,
        direct: Option<&Direct>,
    ) -> anyhow::Result<Self> {
        let sampling = decoding.sampling_params(None)?;
        let concurrency = api.concurrency.unwrap_or(CONCURRENCY);
        let options = ClientOptions {
            api_key: ApiKey::from_env(api.api_key_env.as_deref().unwrap_or(API_KEY_ENV)),
            concurrency,
            timeout: api.timeout_s.unwrap_or(TIMEOUT),
            max_retries: api.max_retries.unwrap_or(MAX_RETRIES),
            ..ClientOptions::new(&api.base_url)
        };
        let client = Client::new(&options).map_err(explain)?;
        Ok(Self {
            client,
            concurrency,
            model: model.to_owned(),
            decoding: decoding.clone(),
            sampling,
            images: direct.map(RequestImages::new),
            has_new_limit: AtomicBool::new(false),
        })
    }

    /// The settings that completions depend on, by name.
    pub(crate) fn settings(&self) -> Map<String, Value> {
        let mut settings = self.decoding.settings(&self.sampling);
        settings.insert("model".to_owned(), json!(self.model));
        settings.extend(self.images.iter().flat_map(RequestImages::settings));
        settings
    }

    /// The questions of `set` for this model, which sees their images and videos.
    ///
    /// # Errors
    /// As [`Direct::lay_out`], or the model does not see.
    pub(crate) fn lay_out(&self, set: SampleSet) -> anyhow::Result<Asked> {
        self.images.as_ref().ok_or_else(direct::not_given)?.lay_out(set)
    }

    /// Samples completions of each prompt and calls `done(position, completions)` as they finish, with the position in
    /// `prompts`. Questions whose requests fail are printed and returned; those that exceed the context length are printed and
    /// have no completions.
    ///
    /// The seed of a request depends only on the seed of the options, on the question's index and on the number of the
    /// sample.
    ///
    /// # Errors
    /// The servers reject every request or fail several times in a row, an image cannot be read, the run is interrupted, or
    /// `done` fails.
    pub(crate) fn sample(
        &self,
        prompts: &[BatchPrompt<'_>],
        samples: usize,
        progress: &dyn Progress,
        done: impl FnMut(usize, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Failures> {
        let stop = on_interrupt("waiting for requests in flight")?;
        progress.start("answering", Some(prompts.len() as u64));
        let pending = Pending::new(prompts.len(), samples);
        let all = (0..prompts.len()).flat_map(|position| (0..samples).map(move |n| (position, n)));
        let work = all.map(|(position, sample)| {
            let (pending, stop) = (&pending, &stop);
            async move {
                if pending.has_failed(position) || stop.load(Ordering::Relaxed) {
                    return Sampled { position, sample, outcome: Outcome::Unsent };
                }
                let prompt = &prompts[position];
                let outcome = match self.messages(prompt).await {
                    Ok(messages) => Outcome::Sent(self.complete(prompt, messages, sample).await),
                    Err(error) => Outcome::Unreadable(error),
                };
                Sampled { position, sample, outcome }
            }
        });
        let work = futures_util::stream::iter(work).buffer_unordered(self.concurrency);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let failures = runtime.block_on(collect(work, prompts, &pending, progress, done));
        progress.finish();
        match pending.is_complete() {
            true => failures,
            false => Err(failures.err().unwrap_or_else(interrupted)),
        }
    }

    /// The messages of the local model's prompt.
    ///
    /// # Errors
    /// An image or a video cannot be read.
    async fn messages(
        &self,
        prompt: &BatchPrompt<'_>,
    ) -> anyhow::Result<Vec<ChatCompletionMessage>> {
        let system = self.decoding.system_prompt();
        match (prompt.seen, &self.images) {
            (Some(seen), Some(images)) => images.messages(seen, &system).await,
            _ => {
                let system = system.text(prompt.given).map(ChatCompletionMessage::system);
                Ok(system.into_iter().chain([ChatCompletionMessage::user(prompt.text)]).collect())
            }
        }
    }

    /// Requests a sample.
    async fn complete(
        &self,
        prompt: &BatchPrompt<'_>,
        messages: Vec<ChatCompletionMessage>,
        sample: usize,
    ) -> Result<ChatCompletion, Error> {
        let limit = match self.has_new_limit.load(Ordering::Relaxed) {
            true => TokenLimit::MaxCompletionTokens,
            false => TokenLimit::MaxTokens,
        };
        let request = |messages, limit| self.request(prompt, messages, sample, limit);
        let first = request(messages, limit);
        match self.client.chat(&first).await {
            Err(Error::Status { status: 400, message, .. })
                if limit == TokenLimit::MaxTokens
                    && message.contains(TokenLimit::MAX_COMPLETION_TOKENS) =>
            {
                self.has_new_limit.store(true, Ordering::Relaxed);
                let limit = TokenLimit::MaxCompletionTokens;
                self.client.chat(&request(first.messages, limit)).await
            }
            result => result,
        }
    }

    /// The request of a sample, with the sampling parameters.
    fn request(
        &self,
        prompt: &BatchPrompt<'_>,
        messages: Vec<ChatCompletionMessage>,
        sample: usize,
        limit: TokenLimit,
    ) -> ChatCompletionRequest {
        let SamplingParams { temperature, top_p, top_k, min_p, repetition_penalty, .. } =
            self.sampling;
        let mut request = ChatCompletionRequest {
            temperature: Some(temperature),
            // Greedy decoding ignores it, and some servers accept only one of the two.
            top_p: (temperature > 0.0).then_some(top_p),
            // Distinct seeds, as servers repeat a response for a repeated seed; all accept 31 bits.
            seed: Some(stream(&[self.decoding.seed, prompt.index as u64, sample as u64]) >> 33),
            ..ChatCompletionRequest::new(&self.model, messages)
        };
        let max_tokens = u32::try_from(self.sampling.max_new_tokens).unwrap_or(u32::MAX);
        match limit {
            TokenLimit::MaxTokens => request.max_tokens = Some(max_tokens),
            TokenLimit::MaxCompletionTokens => {
                let name = TokenLimit::MAX_COMPLETION_TOKENS.to_owned();
                request.extra.insert(name, json!(max_tokens));
            }
        }
        // Not part of OpenAI's API, whose servers refuse them.
        let kwargs = &self.decoding.chat_template_kwargs;
        let extensions = [
            ("chat_template_kwargs", !kwargs.is_empty(), json!(kwargs)),
            ("top_k", top_k > 0, json!(top_k)),
            ("min_p", min_p > 0.0, json!(min_p)),
            ("repetition_penalty", repetition_penalty != 1.0, json!(repetition_penalty)),
        ];
        let given = extensions.into_iter().filter(|(_, is_given, _)| *is_given);
        request.extra.extend(given.map(|(name, _, value)| (name.to_owned(), value)));
        request
    }
}

/// Passes on the completions of each question, and prints failures as they come.
async fn collect(
    work: impl Stream<Item = Sampled>,
    prompts: &[BatchPrompt<'_>],
    pending: &Pending,
    progress: &dyn Progress,
    mut done: impl FnMut(usize, Vec<String>) -> anyhow::Result<()>,
) -> anyhow::Result<Failures> {
    let mut work = std::pin::pin!(work);
    let began = Instant::now();
    let mut failures = Failures::default();
    let (mut answered, mut consecutive, mut tokens) = (0usize, 0usize, 0u64);
    while let Some(Sampled { position, sample, outcome }) = work.next().await {
        let id = &prompts[position].id;
        let text = match outcome {
            Outcome::Unsent => continue,
            Outcome::Unreadable(error) => {
                let what = format!("cannot show question `{id}`: {error:#}");
                return Err(exit::hint(what, RESUME));
            }
            Outcome::Sent(Ok(completion)) => {
                tokens += completion.usage.map_or(0, |usage| usage.completion_tokens);
                completion.text
            }
            Outcome::Sent(Err(Error::ContentFiltered { url, reason })) => {
                let error = Error::ContentFiltered { url, reason };
                progress.warn(&format!("question `{id}` gets an empty completion: {error}"));
                String::new()
            }
            Outcome::Sent(Err(error)) => {
                if !pending.fail(position) {
                    continue;
                }
                if error.is_context_length_exceeded() {
                    progress
                        .warn(&format!("question `{id}` is skipped and counts as wrong: {error}"));
                    progress.advance(1);
                    done(position, Vec::new())?;
                    continue;
                }
                failures.count += 1;
                consecutive += 1;
                let counts = answered == 0 || error.is_retryable();
                if error.fails_every_request()
                    || (counts && consecutive >= MAX_CONSECUTIVE_FAILURES)
                {
                    return Err(explain(error));
                }
                // Before the first response, all failures likely have the same cause.
                if failures.count == 1 || (answered > 0 && failures.count <= MAX_PRINTED_FAILURES) {
                    progress.warn(&format!("question `{id}`: {error}"));
                }
                failures.first.get_or_insert(error);
                progress.advance(1);
                progress.message(&format!("{} failed", failures.count));
                continue;
            }
        };
        if let Some(completions) = pending.add(position, sample, text) {
            answered += 1;
            consecutive = 0;
            done(position, completions)?;
            progress.advance(1);
            if failures.count == 0 && tokens > 0 {
                let rate = tokens as f64 / began.elapsed().as_secs_f64();
                progress.message(&format!("{rate:.0} tokens/s"));
            }
        }
    }
    Ok(failures)
}

/// Adds hints to errors of the API of a model.
pub(crate) fn explain(error: Error) -> anyhow::Error {
    let cause = match &error {
        Error::RetriesExhausted { last, .. } => last,
        error => error,
    };
    let advice = match cause {
        Error::NoBaseUrl | Error::InvalidBaseUrl { .. } => return Usage(error.to_string()).into(),
        Error::Status { status: 401 | 403, .. } => {
            "set OPENAI_API_KEY, or name another variable with `--api-key-env`"
        }
        Error::Status { status: 404, .. } => {
            "check `--base-url`, which ends in `/v1` for most servers, and `--model`, which must be the served model \
             name"
        }
        Error::Status { status: 413, .. } => FEWER_TOKENS,
        Error::Connection { .. } | Error::Timeout { .. } | Error::Unavailable { .. } => {
            "check that the server runs and that `--base-url` is right; finished questions are kept: run the same \
             command again to resume"
        }
        _ => return error.into(),
    };
    exit::hint(error.to_string(), advice)
}
