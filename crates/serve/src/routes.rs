//! Paths and their handlers.

mod generation;

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use embodied_r_policy::tokenizer::{BoundedIds, GenerationPrompt, SpecialTokens, Tokenizer};
use embodied_r_vision::MultimodalMessage;
use serde_json::{Value, json};
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
use crate::request::chat::{ChatRequest, Conversation, ImageUrl};
use crate::request::completion::{AddSpecialTokens, CompletionRequest, Echo, Prompt};
use crate::request::{Model, Settings};
use crate::response::{Envelope, Form};
use generation::ResponseBuilder;

/// The size limit of a request body.
const MAX_BODY_BYTES: usize = 16 << 20;

/// The size limit of a request body that may contain images.
const MAX_IMAGE_BODY_BYTES: usize = 128 << 20;

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
    pub(crate) workers: Semaphore,
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
        .route("/models", get(models))
        .route("/models/{*id}", get(model))
        .fallback(unknown_path)
        .route_layer(middleware::from_fn_with_state(app.clone(), authorize));
    Router::new()
        .nest("/v1", api)
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn unknown_path(method: Method, uri: Uri) -> Refusal {
    Refusal::unknown_path(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
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

async fn models(State(app): State<Shared>) -> Json<Value> {
    Json(json!({"object": "list", "data": [described(&app)]}))
}

async fn model(State(app): State<Shared>, id: Result<Path<String>, PathRejection>) -> Response {
    match id {
        Ok(Path(id)) if id == app.model.name => Json(described(&app)).into_response(),
        Ok(Path(id)) => Refusal::unknown_model(&id, &app.model.name).into_response(),
        Err(_) => Refusal::undecodable_path().into_response(),
    }
}

fn described(app: &App) -> Value {
    let Model { name, max_model_len, .. } = &app.model;
    json!({"id": name, "object": "model", "created": app.began_s, "owned_by": "embodied-r",
        "max_model_len": max_model_len})
}

async fn chat(State(app): State<Shared>, body: Body) -> Response {
    respond(&app, chat_response(&app, body).await)
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
        parse(&bytes, &app.model)
    };
    let parsed = match size > LARGE_BODY_BYTES {
        true => {
            let shared = app.clone();
            run_blocking(app, move |_| checked(&shared)).await?
        }
        false => checked(app),
    };
    Ok((parsed?, RequestBytes { size, memory }))
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
    let prompt = match conversation {
        Conversation::Text(messages) => {
            let ids = chat_ids(app, messages, app.model.max_model_len).await?;
            drop(memory);
            embodied_r_policy::Prompt::from(ids)
        }
        Conversation::Multimodal(messages, urls) => {
            image_prompt(app, messages, urls, &settings, memory).await?
        }
    };
    let input = Input { param: "messages", prompts: vec![prompt], form: Form::Chat };
    generate(app, input, settings, arrived, &permit).await
}

/// The ids of a rendered conversation, if there are at most `most`.
async fn chat_ids<M: serde::Serialize + Send + 'static>(
    app: &Shared,
    messages: Vec<M>,
    most: usize,
) -> Result<Vec<u32>, Refusal> {
    let ids = run_blocking(app, move |tokenizer| {
        let text = tokenizer.apply_chat_template(&messages, GenerationPrompt::Append)?;
        drop(messages);
        tokenizer.encode_at_most(&text, most)
    });
    within_context(app, "messages", ids.await?)
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
    messages: Vec<MultimodalMessage>,
    urls: Vec<ImageUrl>,
    settings: &Settings,
    RequestBytes { size, mut memory }: RequestBytes,
) -> Result<embodied_r_policy::Prompt, Refusal> {
    // The parser accepts images only for vision-language models.
    let no_encoder = || Refusal::failed("there is no vision encoder");
    let media = app.model.media.as_ref().ok_or_else(no_encoder)?;
    let most = app.model.max_model_len;
    let limits = ImageLimits { max_model_len: most, max_pixels: app.limits.max_prompt_pixels };
    let (budget, bytes) = (&app.request_memory, size as u64);
    let reserved = RequestMemory { budget, reserved: &mut memory, bytes };
    let images = ImageFiles::load(media, urls, limits, reserved).await?;
    // A placeholder stands for all tokens of its image.
    let others = images.tokens.saturating_sub(images.len());
    let ids = chat_ids(app, messages, most.saturating_sub(others)).await?;
    settings.sampling_after("messages", ids.len() + others, &app.model)?;
    let embeddings = images.encode(media).await?;
    let prompt = media.embedding_cache.vision_encoder().expand_placeholders(&ids, &embeddings);
    prompt.map_err(|error| match &error {
        embodied_r_vision::Error::Policy(error) => Refusal::from_policy("messages", error),
        _ => Refusal::failed(error),
    })
}

async fn completions_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let (request, memory) = parse(app, body, CompletionRequest::parse).await?;
    let CompletionRequest { prompts, special_tokens, echo, settings } = request;
    let permit = app.admission.admit(settings.n.saturating_mul(prompts.len()))?;
    let most = app.model.max_model_len;
    let (ids, texts) = run_blocking(app, move |tokenizer| {
        let texts = match echo {
            Echo::On => texts(tokenizer, &prompts).map(Some),
            Echo::Off => Ok(None),
        };
        let ids = prompts.into_iter().map(|prompt| ids(tokenizer, prompt, special_tokens, most));
        (ids.collect::<Vec<_>>(), texts)
    })
    .await?;
    drop(memory);
    let prompts = ids.into_iter().map(|ids| within_context(app, "prompt", ids));
    let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
    let texts = texts.map_err(|error| Refusal::from_policy("prompt", &error))?;
    let prompts = prompts.into_iter().map(embodied_r_policy::Prompt::from).collect();
    let form = Form::Completion { echo: texts, n: settings.n };
    generate(app, Input { param: "prompt", prompts, form }, settings, arrived, &permit).await
}

/// Runs CPU-heavy work on a blocking thread, on as many as there are processors.
async fn run_blocking<T: Send + 'static>(
    app: &Shared,
    work: impl FnOnce(&Tokenizer) -> T + Send + 'static,
) -> Result<T, Refusal> {
    // Without this limit, the memory of tokenization would grow with the number of requests.
    let _worker = app.workers.acquire().await.map_err(Refusal::failed)?;
    let tokenizer = app.model.tokenizer.clone();
    let done = tokio::task::spawn_blocking(move || work(&tokenizer));
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
    let after = |prompt: &embodied_r_policy::Prompt| {
        settings.sampling_after(param, prompt.len(), &app.model)
    };
    let samplings = prompts.iter().map(after).collect::<Result<Vec<_>, _>>()?;
    let (prompt_tokens, count) =
        (prompts.iter().map(embodied_r_policy::Prompt::len).sum(), prompts.len());
    let stream = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    let running = app.driver.submit(prompts, samplings, settings.n, stream, arrived, permit);
    let envelope = Envelope::new(form, &app.model.name);
    ResponseBuilder::new(app, running, settings, envelope, prompt_tokens, count).send().await
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
