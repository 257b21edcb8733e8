//! The blind model, which answers without captions: in this process, or behind an API.

use std::time::Duration;

use crate::hub;
use embodied_r_data::{Progress, prompts};
use embodied_r_grpo::random::stream;
use embodied_r_openai::{
    ApiKey, ChatCompletionMessage, ChatCompletionRequest, Client, ClientOptions, Error,
};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::{BlindQuestion, explain};
use crate::args::filter::{FilterArgs, SamplingArgs};
use crate::args::model::{DecodingArgs, ModelArgs, WeightArgs};
use crate::batch_generator::BatchGenerator;

const API_KEY_ENV: &str = "OPENAI_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(300);
const MAX_RETRIES: u32 = 5;
const CONCURRENCY: usize = 16;
const BATCH: usize = 16;

/// Maximum failures that are logged.
const MAX_LOGGED_FAILURES: usize = 10;
/// Failures without a single response after which the run is aborted.
const MAX_INITIAL_FAILURES: usize = 8;

/// A model and its sampling parameters.
pub(super) struct BlindModel {
    tries: usize,
    system: String,
    temperature: f64,
    max_new_tokens: u32,
    seed: u64,
    backend: Backend,
}

/// The backend of the model.
enum Backend {
    Local(ModelArgs),
    Api { client: Client, model: String, concurrency: usize },
}

impl BlindModel {
    pub(super) fn new(args: &FilterArgs) -> anyhow::Result<Self> {
        let SamplingArgs { temperature, max_new_tokens, seed, system_prompt } = &args.sampling;
        let system =
            system_prompt.clone().unwrap_or_else(|| prompts::blind_system_prompt().to_owned());
        let backend = match &args.api.api_model {
            Some(model) => Backend::Api {
                client: client(args)?,
                model: model.clone(),
                concurrency: args.api.concurrency.unwrap_or(CONCURRENCY),
            },
            None => Backend::Local(ModelArgs {
                model: args.local.model.clone(),
                revision: args.local.revision.clone(),
                weights: WeightArgs {
                    precision: args.local.precision,
                    quantize: None,
                    device: args.local.device.unwrap_or_default(),
                },
                decoding: DecodingArgs {
                    temperature: Some(*temperature),
                    top_p: 1.0,
                    top_k: 0,
                    max_new_tokens: *max_new_tokens as usize,
                    seed: *seed,
                    system_prompt: Some(system.clone()),
                },
                batch: args.local.batch.unwrap_or(BATCH),
            }),
        };
        Ok(Self {
            tries: args.tries,
            system,
            temperature: *temperature,
            max_new_tokens: *max_new_tokens,
            seed: *seed,
            backend,
        })
    }

    /// The settings that the responses depend on.
    pub(super) fn settings(&self) -> anyhow::Result<Map<String, Value>> {
        let (model, precision) = match &self.backend {
            Backend::Local(args) => {
                let dir = hub::decoder(
                    args.model.as_deref().unwrap_or_default(),
                    args.revision.as_deref(),
                )?;
                (
                    embodied_r_policy::fingerprint(&dir)?,
                    Some(args.weights.precision_on(args.weights.device).name()),
                )
            }
            Backend::Api { model, .. } => (model.clone(), None),
        };
        Ok(Map::from_iter([
            ("model".to_owned(), json!(model)),
            ("precision".to_owned(), json!(precision)),
            ("tries".to_owned(), json!(self.tries)),
            ("temperature".to_owned(), json!(self.temperature)),
            ("max_new_tokens".to_owned(), json!(self.max_new_tokens)),
            ("seed".to_owned(), json!(self.seed)),
            ("system_prompt".to_owned(), json!(self.system)),
        ]))
    }

    /// Samples all tries of each question and calls `done(question, responses)` as they finish. Questions whose
    /// requests fail are skipped.
    pub(super) fn sample<'a>(
        &self,
        questions: &[&'a BlindQuestion<'a>],
        progress: &dyn Progress,
        mut done: impl FnMut(&'a BlindQuestion<'a>, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match &self.backend {
            Backend::Local(args) => {
                let prompts: Vec<(usize, &str)> =
                    questions.iter().map(|question| (question.index, question.text)).collect();
                let mut questions = questions.iter();
                // Local results come in order.
                let answered = |_, responses| match questions.next() {
                    Some(question) => done(question, responses),
                    None => Ok(()),
                };
                BatchGenerator::load(args)?.sample(&prompts, self.tries, progress, answered)
            }
            Backend::Api { client, model, concurrency } => {
                progress.start("answering", Some(questions.len() as u64));
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                let work = questions.iter().map(|&question| {
                    let requests = self.requests(model, question);
                    async move { (question, responses(client, &requests).await) }
                });
                let work = futures_util::stream::iter(work).buffer_unordered(*concurrency);
                runtime.block_on(collect(work, progress, &mut done))?;
                progress.finish();
                Ok(())
            }
        }
    }

    /// The requests of one question's tries.
    fn requests(&self, model: &str, question: &BlindQuestion<'_>) -> Vec<ChatCompletionRequest> {
        let messages = vec![
            ChatCompletionMessage::system(&self.system),
            ChatCompletionMessage::user(question.text),
        ];
        let request = |attempt| ChatCompletionRequest {
            temperature: Some(self.temperature),
            max_tokens: Some(self.max_new_tokens),
            // Distinct seeds, as servers repeat a response for a repeated seed; all accept 31 bits.
            seed: Some(stream(&[self.seed, question.index as u64, attempt]) >> 33),
            ..ChatCompletionRequest::new(model, messages.clone())
        };
        (0..self.tries as u64).map(request).collect()
    }
}

fn client(args: &FilterArgs) -> anyhow::Result<Client> {
    let options = ClientOptions {
        api_key: ApiKey::from_env(args.api.api_key_env.as_deref().unwrap_or(API_KEY_ENV)),
        timeout: args.api.timeout_s.unwrap_or(TIMEOUT),
        max_retries: args.api.max_retries.unwrap_or(MAX_RETRIES),
        ..ClientOptions::new(&args.api.base_url)
    };
    Client::new(&options).map_err(explain)
}

/// The responses to all tries of a question, requested one after another.
async fn responses(
    client: &Client,
    requests: &[ChatCompletionRequest],
) -> Result<Vec<String>, Error> {
    let mut responses = Vec::with_capacity(requests.len());
    for request in requests {
        responses.push(client.chat(request).await?.text);
    }
    Ok(responses)
}

/// Passes on responses and logs failures as they come.
async fn collect<'a>(
    work: impl futures_util::Stream<Item = (&'a BlindQuestion<'a>, Result<Vec<String>, Error>)>,
    progress: &dyn Progress,
    done: &mut dyn FnMut(&'a BlindQuestion<'a>, Vec<String>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut work = std::pin::pin!(work);
    let (mut answered, mut failed) = (0usize, 0usize);
    while let Some((question, result)) = work.next().await {
        match result {
            Ok(responses) => {
                answered += 1;
                done(question, responses)?;
            }
            Err(error) if error.fails_every_request() => return Err(explain(error)),
            Err(error) => {
                failed += 1;
                if answered == 0 && failed >= MAX_INITIAL_FAILURES {
                    return Err(explain(error));
                }
                // Before the first response, all failures likely have the same cause.
                if failed == 1 || (answered > 0 && failed <= MAX_LOGGED_FAILURES) {
                    progress.warn(&format!("question `{}`: {error}", question.id));
                }
            }
        }
        progress.advance(1);
        if failed > 0 {
            progress.message(&format!("{failed} failed"));
        }
    }
    Ok(())
}
