//! The model that sees nothing: in this process, or behind an API.

use std::time::Duration;

use embodied_r_data::{Progress, prompts};
use embodied_r_grpo::random::stream;
use embodied_r_openai::{ApiKey, ChatRequest, Client, ClientOptions, Error, Message};
use embodied_r_policy::hub;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::{Asked, explain};
use crate::answer::Answerer;
use crate::args::filter::{DrawingArgs, FilterArgs};
use crate::args::model::{DecodingArgs, ModelArgs, WeightArgs};

const API_KEY_ENV: &str = "OPENAI_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(300);
const MAX_RETRIES: u32 = 5;
const CONCURRENCY: usize = 16;
const BATCH: usize = 16;

/// So many failures are shown as they happen.
const SHOWN_FAILURES: usize = 10;
/// After so many failures without a single reply the rest is not tried.
const HOPELESS: usize = 8;

/// A model, and how it is asked.
pub(super) struct Blind {
    tries: usize,
    system: String,
    temperature: f64,
    max_new_tokens: u32,
    seed: u64,
    place: Place,
}

/// Where the model is.
enum Place {
    Here(ModelArgs),
    Api { client: Client, model: String, concurrency: usize },
}

impl Blind {
    pub(super) fn new(args: &FilterArgs) -> anyhow::Result<Self> {
        let DrawingArgs { temperature, max_new_tokens, seed, system_prompt } = &args.drawing;
        let system = system_prompt.clone().unwrap_or_else(|| prompts::blind_system().to_owned());
        let place = match &args.api.api_model {
            Some(model) => Place::Api {
                client: client(args)?,
                model: model.clone(),
                concurrency: args.api.concurrency.unwrap_or(CONCURRENCY),
            },
            None => Place::Here(ModelArgs {
                model: args.local.model.clone(),
                revision: args.local.revision.clone(),
                weights: WeightArgs {
                    precision: args.local.precision.unwrap_or_default(),
                    quantize: None,
                    device: args.local.device.unwrap_or_default(),
                },
                decoding: DecodingArgs {
                    temperature: *temperature,
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
            place,
        })
    }

    /// What the replies depend on, beside the question.
    pub(super) fn settings(&self) -> anyhow::Result<Map<String, Value>> {
        let (model, precision) = match &self.place {
            Place::Here(args) => {
                let dir = hub::resolve(
                    args.model.as_deref().unwrap_or_default(),
                    args.revision.as_deref(),
                )?;
                (embodied_r_policy::fingerprint(&dir)?, Some(args.weights.precision.name()))
            }
            Place::Api { model, .. } => (model.clone(), None),
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

    /// Asks each question all its times; `done(question, replies)` is called as they are answered. A
    /// question whose requests fail is passed over.
    pub(super) fn ask<'a>(
        &self,
        questions: &[&'a Asked<'a>],
        progress: &dyn Progress,
        mut done: impl FnMut(&'a Asked<'a>, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match &self.place {
            Place::Here(args) => {
                let prompts: Vec<(usize, &str)> =
                    questions.iter().map(|question| (question.index, question.text)).collect();
                let mut questions = questions.iter();
                // They are answered in their order.
                let answered = |_, replies| match questions.next() {
                    Some(question) => done(question, replies),
                    None => Ok(()),
                };
                Answerer::load(args)?.sample(&prompts, self.tries, progress, answered)
            }
            Place::Api { client, model, concurrency } => {
                progress.start("asking", Some(questions.len() as u64));
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                let work = questions.iter().map(|&question| {
                    let requests = self.requests(model, question);
                    async move { (question, replies(client, &requests).await) }
                });
                let work = futures_util::stream::iter(work).buffer_unordered(*concurrency);
                runtime.block_on(collect(work, progress, &mut done))?;
                progress.finish();
                Ok(())
            }
        }
    }

    /// The requests of one question's tries.
    fn requests(&self, model: &str, question: &Asked<'_>) -> Vec<ChatRequest> {
        let messages = vec![Message::system(&self.system), Message::user(question.text)];
        let request = |attempt| ChatRequest {
            temperature: Some(self.temperature),
            max_tokens: Some(self.max_new_tokens),
            // Servers that know seeds would give the same reply to the same one; 31 bits fit all.
            seed: Some(stream(&[self.seed, question.index as u64, attempt]) >> 33),
            ..ChatRequest::new(model, messages.clone())
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

/// The replies to the tries of one question, asked one after the other.
async fn replies(client: &Client, requests: &[ChatRequest]) -> Result<Vec<String>, Error> {
    let mut replies = Vec::with_capacity(requests.len());
    for request in requests {
        replies.push(client.chat(request).await?.text);
    }
    Ok(replies)
}

/// Hands on what is answered and tells what failed, as it comes.
async fn collect<'a>(
    work: impl futures_util::Stream<Item = (&'a Asked<'a>, Result<Vec<String>, Error>)>,
    progress: &dyn Progress,
    done: &mut dyn FnMut(&'a Asked<'a>, Vec<String>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut work = std::pin::pin!(work);
    let (mut answered, mut failed) = (0usize, 0usize);
    while let Some((question, result)) = work.next().await {
        match result {
            Ok(replies) => {
                answered += 1;
                done(question, replies)?;
            }
            Err(error) if error.refuses_everyone() => return Err(explain(error)),
            Err(error) => {
                failed += 1;
                if answered == 0 && failed >= HOPELESS {
                    return Err(explain(error));
                }
                // Where nothing is answered yet, they most likely fail for the same reason.
                if failed == 1 || (answered > 0 && failed <= SHOWN_FAILURES) {
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
