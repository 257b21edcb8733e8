//! Paths and their handlers.

mod generation;
mod logprobs;
mod models;
mod tokens;

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::extract::{OriginalUri, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use embodied_r_policy::tokenizer::{BoundedIds, SpecialTokens, Tokenizer};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::admission::{Admission, Permit};
use crate::api_key::ApiKeyHash;
use crate::body::{Body, Received};
use crate::budget::{Budget, Reserved};
use crate::driver::Driver;
use crate::images::{ImageFiles, ImageLimits};
use crate::json_size;
use crate::limits::HttpLimits;
use crate::media::RequestMemory;
use crate::metrics::{Metrics, Outcome};
use crate::refusal::Refusal;
use crate::request::chat::{ChatRequest, Conversation};
use crate::request::completion::{AddSpecialTokens, CompletionRequest, Echo, Prompt};
use crate::request::responses::ResponsesRequest;
use crate::request::{Model, Settings};
use crate::response::{EchoedLogprobs, EchoedPrompt, Envelope, Form, Responses};
use generation::{Prompts, ResponseBuilder};
use logprobs::LogprobMemory;

/// The size limit of a request body.
const MAX_BODY_BYTES: usize = 16 << 20;

/// The size limit of a request body that may contain images.
pub const MAX_IMAGE_BODY_BYTES: usize = 128 << 20;

/// Larger bodies are parsed on a blocking thread.
const LARGE_BODY_BYTES: usize = 64 << 10;

/// The state shared by all handlers.
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) driver: Driver,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) api_key: Option<ApiKeyHash>,
    pub(crate) limits: HttpLimits,
    /// The memory of request bodies.
    pub(crate) request_memory: Budget,
    /// Requests that are parsed or tokenized at a time.
    pub(crate) workers: Arc<Semaphore>,
    /// The Unix time at which the server started.
    pub(crate) began_s: u64,
}

type Shared = Arc<App>;

impl App {
    /// The size limit of a request body.
    pub(crate) fn max_body_bytes(&self) -> usize {
        match self.model.media {
            Some(_) => MAX_IMAGE_BODY_BYTES,
            None => MAX_BODY_BYTES,
        }
    }
}

/// The server's paths.
pub(crate) fn router(app: Shared) -> Router {
    let api = Router::new()
        .route("/chat/completions", post(chat))
        .route("/completions", post(completions))
        .route("/responses", post(responses))
        .route("/models", get(models::list))
        .route("/models/{*id}", get(models::one))
        .fallback(unknown_path)
        .route_layer(middleware::from_fn_with_state(app.clone(), authorize));
    let tokens =
        tokens::router().route_layer(middleware::from_fn_with_state(app.clone(), authorize));
    Router::new()
        .nest("/v1", api)
        .merge(tokens)
        .route("/health", get(health))
        .route("/ping", get(health).post(health))
        .route("/version", get(models::version))
        .route("/metrics", get(metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn unknown_path(method: Method, OriginalUri(uri): OriginalUri) -> Refusal {
    Refusal::unknown_path(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Refusal {
    Refusal::wrong_method(method.as_str(), uri.path())
}

/// Checks the API key.
async fn authorize(State(app): State<Shared>, request: Request, next: Next) -> Response {
    match &app.api_key {
        Some(key) if !bearer(request.headers()).is_some_and(|candidate| key.is(candidate)) => {
            app.metrics.ended(Outcome::Refused);
            Refusal::unauthorized().into_response()
        }
        _ => next.run(request).await,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

async fn health(State(app): State<Shared>) -> Response {
    match app.admission.is_closed() {
        false => Json(json!({"status": "ok"})).into_response(),
        true => Refusal::stopping().into_response(),
    }
}

async fn metrics(State(app): State<Shared>) -> Response {
    match app.metrics.text(app.admission.admitted()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => Refusal::failed(error).into_response(),
    }
}

async fn chat(State(app): State<Shared>, body: Body) -> Response {
    respond(&app, chat_response(&app, body).await)
}

async fn responses(State(app): State<Shared>, body: Body) -> Response {
    respond(&app, responses_response(&app, body).await)
}

async fn completions(State(app): State<Shared>, body: Body) -> Response {
    respond(&app, completions_response(&app, body).await)
}

/// The response; a refusal is counted.
fn respond(app: &App, response: Result<Response, Refusal>) -> Response {
    response.unwrap_or_else(|refusal| {
        app.metrics.ended(refusal.outcome());
        refusal.into_response()
    })
}

/// Parses a body; large ones on a blocking thread. Its memory stays reserved until its prompts are built.
async fn parse<T: Send + 'static>(
    app: &Shared,
    body: Body,
    parse: fn(&[u8], &Model) -> Result<T, Refusal>,
) -> Result<(T, RequestBytes), Refusal> {
    let Received { bytes, memory } = body.0?;
    let size = bytes.len();
    let checked = move |app: &App| {
        json_size::check(&bytes)?;
        let request = parse(&bytes, &app.model)?;
        Ok((request, RequestBytes { size, memory }))
    };
    match size > LARGE_BODY_BYTES {
        true => {
            let shared = app.clone();
            run_blocking(app, move |_| checked(&shared)).await?
        }
        false => checked(app),
    }
}

/// The size of a body and its share of the memory for requests.
struct RequestBytes {
    size: usize,
    memory: Reserved,
}

async fn chat_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let (request, memory) = parse(app, body, ChatRequest::parse).await?;
    let ChatRequest { conversation, settings } = request;
    let permit = app.admission.admit(settings.n)?;
    let prompt = chat_prompt(app, "messages", conversation, Some(&settings), memory).await?;
    let input = Input { param: "messages", prompts: vec![prompt], form: Form::Chat };
    generate(app, input, settings, arrived, &permit).await
}

async fn responses_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let (request, memory) = parse(app, body, ResponsesRequest::parse).await?;
    let ResponsesRequest { conversation, settings, mut repeated } = request;
    let permit = app.admission.admit(settings.n)?;
    let prompt = chat_prompt(app, "input", conversation, Some(&settings), memory).await?;
    repeated.insert("temperature".to_owned(), settings.sampling.temperature.into());
    repeated.insert("top_p".to_owned(), settings.sampling.top_p.into());
    let response = Responses::new(&app.model.name, repeated);
    let form = Form::Responses(Box::new(response));
    let input = Input { param: "input", prompts: vec![prompt], form };
    generate(app, input, settings, arrived, &permit).await
}

/// The prompt of a conversation from the field `param`, with room for the completion that `settings` ask for.
async fn chat_prompt(
    app: &Shared,
    param: &'static str,
    mut conversation: Conversation,
    settings: Option<&Settings>,
    memory: RequestBytes,
) -> Result<embodied_r_policy::Prompt, Refusal> {
    let cache_salt = conversation.cache_salt.take();
    let prompt = match conversation.images.is_empty() {
        true => {
            let (most, memory) = (app.model.max_model_len, Arc::new(memory.memory));
            let ids = chat_ids(app, param, conversation, most, memory).await?;
            embodied_r_policy::Prompt::from(ids)
        }
        false => image_prompt(app, param, conversation, settings, memory).await?,
    };
    Ok(prompt.with_cache_salt(cache_salt.as_deref()))
}

/// The ids of a rendered conversation, whose request has this `memory`, if there are at most `most`.
async fn chat_ids(
    app: &Shared,
    param: &str,
    conversation: Conversation,
    most: usize,
    memory: Arc<Reserved>,
) -> Result<Vec<u32>, Refusal> {
    let ids = run_blocking(app, move |tokenizer| {
        let _memory = memory;
        let Conversation { messages, generation, variables, .. } = conversation;
        let chat = tokenizer.apply_chat_template_with(&messages, generation, &variables)?;
        drop(messages);
        tokenizer.encode_chat_at_most(&chat, most)
    });
    within_context(app, param, ids.await?)
}

/// The ids of the field `param`, or why there are none.
fn within_context(
    app: &App,
    param: &str,
    ids: embodied_r_policy::Result<BoundedIds>,
) -> Result<Vec<u32>, Refusal> {
    match ids.map_err(|error| Refusal::from_policy(param, &error))? {
        BoundedIds::Ids(ids) => Ok(ids),
        BoundedIds::TooMany { at_least } => {
            Err(Refusal::too_many_tokens(param, at_least, app.model.max_model_len))
        }
    }
}

/// The prompt of a conversation with images, which are decoded only if they fit the context.
async fn image_prompt(
    app: &Shared,
    param: &'static str,
    mut conversation: Conversation,
    settings: Option<&Settings>,
    RequestBytes { size, mut memory }: RequestBytes,
) -> Result<embodied_r_policy::Prompt, Refusal> {
    let urls = std::mem::take(&mut conversation.images);
    // The parser accepts images only for vision-language models.
    let no_encoder = || Refusal::failed("there is no vision encoder");
    let media = app.model.media.as_ref().ok_or_else(no_encoder)?;
    let most = app.model.max_model_len;
    let limits = ImageLimits { max_model_len: most, max_pixels: app.limits.max_prompt_pixels };
    let (budget, bytes) = (&app.request_memory, size as u64);
    let reserved = RequestMemory { budget, reserved: &mut memory, bytes };
    let images = ImageFiles::load(media, param, urls, limits, reserved).await?;
    let memory = Arc::new(memory);
    // A placeholder stands for all tokens of its image.
    let others = images.tokens.saturating_sub(images.len());
    let most = most.saturating_sub(others);
    let ids = chat_ids(app, param, conversation, most, memory.clone()).await?;
    if let Some(settings) = settings {
        settings.sampling_after(param, ids.len() + others, &app.model)?;
    }
    let embeddings = images.encode(media, &memory).await?;
    let prompt = media.embedding_cache.vision_encoder().expand_placeholders(&ids, &embeddings);
    prompt.map_err(|error| match &error {
        embodied_r_vision::Error::Policy(error) => Refusal::from_policy(param, error),
        // The template may have no place for the images of a role.
        embodied_r_vision::Error::ImageCount { .. } => Refusal::about(param, error.to_string()),
        _ => Refusal::failed(error),
    })
}

async fn completions_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let (request, memory) = parse(app, body, CompletionRequest::parse).await?;
    let CompletionRequest { prompts, special_tokens, echo, cache_salt, settings } = request;
    let permit = app.admission.admit(settings.n.saturating_mul(prompts.len()))?;
    let most = app.model.max_model_len;
    let logprobs = match settings.sampling.prompt_logprobs {
        Some(_) => EchoedLogprobs::Pending,
        None => EchoedLogprobs::None,
    };
    let (ids, echo) = run_blocking(app, move |tokenizer| {
        let _memory = memory;
        let echoed = |text| EchoedPrompt { text, logprobs: logprobs.clone() };
        let echo = match echo {
            Echo::On => texts(tokenizer, &prompts)
                .map(|texts| Some(texts.into_iter().map(echoed).collect())),
            Echo::Off => Ok(None),
        };
        let ids = prompts.into_iter().map(|prompt| ids(tokenizer, prompt, special_tokens, most));
        (ids.collect::<Vec<_>>(), echo)
    })
    .await?;
    let prompts = ids.into_iter().map(|ids| within_context(app, "prompt", ids));
    let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
    let echo: Option<Vec<EchoedPrompt>> =
        echo.map_err(|error| Refusal::from_policy("prompt", &error))?;
    let prompt = |ids| embodied_r_policy::Prompt::from(ids).with_cache_salt(cache_salt.as_deref());
    let prompts = prompts.into_iter().map(prompt).collect();
    let form = Form::Completion { echo, n: settings.n };
    generate(app, Input { param: "prompt", prompts, form }, settings, arrived, &permit).await
}

/// Runs CPU-heavy work on a blocking thread, on as many as there are processors. The work goes on after the client has
/// disconnected, so it owns the memory that is reserved for it.
async fn run_blocking<T: Send + 'static>(
    app: &Shared,
    work: impl FnOnce(&Tokenizer) -> T + Send + 'static,
) -> Result<T, Refusal> {
    // Without this limit, the memory of tokenization would grow with the number of requests.
    let worker = app.workers.clone().acquire_owned().await.map_err(Refusal::failed)?;
    let tokenizer = app.model.tokenizer.clone();
    let done = tokio::task::spawn_blocking(move || {
        let _worker = worker;
        work(&tokenizer)
    });
    done.await.map_err(Refusal::failed)
}

fn texts(tokenizer: &Tokenizer, prompts: &[Prompt]) -> embodied_r_policy::Result<Vec<String>> {
    let text = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Ids(ids) => tokenizer.decode(ids, SpecialTokens::Keep),
    };
    prompts.iter().map(text).collect()
}

fn ids(
    tokenizer: &Tokenizer,
    prompt: Prompt,
    special_tokens: AddSpecialTokens,
    most: usize,
) -> embodied_r_policy::Result<BoundedIds> {
    match (prompt, special_tokens) {
        (Prompt::Ids(ids), _) => Ok(BoundedIds::Ids(ids)),
        (Prompt::Text(text), AddSpecialTokens::Yes) => {
            tokenizer.encode_with_special_tokens_at_most(&text, most)
        }
        (Prompt::Text(text), AddSpecialTokens::No) => tokenizer.encode_at_most(&text, most),
    }
}

/// Prompts, the field that they came from, and the response format.
struct Input {
    param: &'static str,
    prompts: Vec<embodied_r_policy::Prompt>,
    form: Form,
}

async fn generate(
    app: &Shared,
    input: Input,
    settings: Settings,
    arrived: Instant,
    permit: &Permit,
) -> Result<Response, Refusal> {
    let Input { param, prompts, form } = input;
    let memory = LogprobMemory::of_echo(&app.request_memory, &settings, &prompts)?;
    let after = |prompt: &embodied_r_policy::Prompt| {
        settings.sampling_after(param, prompt.len(), &app.model)
    };
    let samplings = prompts.iter().map(after).collect::<Result<Vec<_>, _>>()?;
    let of_response = Prompts::new(&prompts, &settings, memory);
    let stream = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    let running = app.driver.submit(prompts, samplings, settings.n, stream, arrived, permit);
    let envelope = Envelope::new(form, &app.model);
    ResponseBuilder::new(app, running, settings, envelope, of_response).send().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_bearer_headers_only() {
        let key = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, header::HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(key("Bearer sk-a").as_deref(), Some("sk-a"));
        assert_eq!(key("bearer sk-a").as_deref(), Some("sk-a"));
        assert_eq!(key("Basic sk-a"), None);
        assert_eq!(key("sk-a"), None);
    }
}
