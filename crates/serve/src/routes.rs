//! Paths and their handlers.

mod generation;

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use embodied_r_policy::tokenizer::{GenerationPrompt, SpecialTokens, Tokenizer};
use embodied_r_vision::MultimodalMessage;
use image::RgbImage;
use serde_json::{Value, json};

use crate::admission::{Admission, Permit};
use crate::api_key::ApiKeyHash;
use crate::driver::Driver;
use crate::media;
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

/// The state shared by all handlers.
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) driver: Driver,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) api_key: Option<ApiKeyHash>,
    /// The Unix time at which the server started.
    pub(crate) began_s: u64,
}

type Shared = Arc<App>;

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
        .layer(DefaultBodyLimit::max(max_body_bytes(&app)))
        .with_state(app)
}

fn max_body_bytes(app: &App) -> usize {
    match app.model.media {
        Some(_) => MAX_IMAGE_BODY_BYTES,
        None => MAX_BODY_BYTES,
    }
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

async fn model(State(app): State<Shared>, Path(id): Path<String>) -> Response {
    match id == app.model.name {
        true => Json(described(&app)).into_response(),
        false => Refusal::unknown_model(&id, &app.model.name).into_response(),
    }
}

fn described(app: &App) -> Value {
    let Model { name, max_model_len, .. } = &app.model;
    json!({"id": name, "object": "model", "created": app.began_s, "owned_by": "embodied-r",
        "max_model_len": max_model_len})
}

type Body = Result<Bytes, BytesRejection>;

async fn chat(State(app): State<Shared>, body: Body) -> Response {
    respond(&app, chat_response(&app, body).await)
}

async fn completions(State(app): State<Shared>, body: Body) -> Response {
    respond(&app, completions_response(&app, body).await)
}

/// The response; a refusal is counted.
fn respond(app: &App, response: Result<Response, Refusal>) -> Response {
    response.unwrap_or_else(|refusal| {
        app.metrics.ended(Outcome::of_status(refusal.status()));
        refusal.into_response()
    })
}

fn read(app: &App, body: Body) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_large(max_body_bytes(app)),
        _ => Refusal::body(rejection.body_text()),
    })
}

async fn chat_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let ChatRequest { conversation, settings } = ChatRequest::parse(&read(app, body)?, &app.model)?;
    let permit = app.admission.admit(settings.n)?;
    let prompt = match conversation {
        Conversation::Text(messages) => run_blocking(app, move |tokenizer| {
            let text = tokenizer.apply_chat_template(&messages, GenerationPrompt::Append)?;
            Ok(embodied_r_policy::Prompt::from(tokenizer.encode(&text)?))
        })
        .await?
        .map_err(|error| Refusal::from_policy("messages", &error))?,
        Conversation::Multimodal(messages, urls) => image_prompt(app, messages, &urls).await?,
    };
    let input = Input { param: "messages", prompts: vec![prompt], form: Form::Chat };
    generate(app, input, settings, arrived, &permit).await
}

/// The prompt of a conversation with images, which are encoded only if they fit the context.
async fn image_prompt(
    app: &Shared,
    messages: Vec<MultimodalMessage>,
    urls: &[ImageUrl],
) -> Result<embodied_r_policy::Prompt, Refusal> {
    // The parser accepts images only for vision-language models.
    let no_encoder = || Refusal::failed("there is no vision encoder");
    let media = app.model.media.as_ref().ok_or_else(no_encoder)?;
    let mut files = Vec::with_capacity(urls.len());
    for ImageUrl { param, url } in urls {
        files.push((param.clone(), media.bytes(param, url).await?));
    }
    let (cache, most) = (media.embedding_cache.clone(), app.model.max_model_len);
    run_blocking(app, move |tokenizer| {
        let images = files.iter().map(|(param, bytes)| media::decode(param, bytes));
        let images: Vec<RgbImage> = images.collect::<Result<_, _>>()?;
        let refused = |error: embodied_r_vision::Error| match &error {
            embodied_r_vision::Error::Policy(error) => Refusal::from_policy("messages", error),
            embodied_r_vision::Error::AspectRatio { .. } => {
                Refusal::about("messages", error.to_string())
            }
            _ => Refusal::failed(error),
        };
        let mut tokens = 0;
        for image in &images {
            tokens += cache.vision_encoder().image_tokens(image.dimensions()).map_err(refused)?;
        }
        if tokens >= most {
            return Err(Refusal::too_long("messages", tokens, 1, most));
        }
        let embeddings =
            cache.encode_images(&images.iter().collect::<Vec<_>>()).map_err(refused)?;
        cache.vision_encoder().prompt(tokenizer, &messages, &embeddings).map_err(refused)
    })
    .await?
}

async fn completions_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let CompletionRequest { prompts, special_tokens, echo, settings } =
        CompletionRequest::parse(&read(app, body)?, &app.model)?;
    let permit = app.admission.admit(settings.n.saturating_mul(prompts.len()))?;
    let (prompts, texts) = run_blocking(app, move |tokenizer| {
        let texts = match echo {
            Echo::On => Some(texts(tokenizer, &prompts)?),
            Echo::Off => None,
        };
        Ok((ids(tokenizer, prompts, special_tokens)?, texts))
    })
    .await?
    .map_err(|error: embodied_r_policy::Error| Refusal::from_policy("prompt", &error))?;
    let prompts = prompts.into_iter().map(embodied_r_policy::Prompt::from).collect();
    let form = Form::Completion { echo: texts, n: settings.n };
    generate(app, Input { param: "prompt", prompts, form }, settings, arrived, &permit).await
}

/// Runs CPU-heavy work on a blocking thread.
async fn run_blocking<T: Send + 'static>(
    app: &Shared,
    work: impl FnOnce(&Tokenizer) -> T + Send + 'static,
) -> Result<T, Refusal> {
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
    prompts: Vec<Prompt>,
    special_tokens: AddSpecialTokens,
) -> embodied_r_policy::Result<Vec<Vec<u32>>> {
    let ids = |prompt| match (prompt, special_tokens) {
        (Prompt::Ids(ids), _) => Ok(ids),
        (Prompt::Text(text), AddSpecialTokens::Yes) => tokenizer.encode_with_special_tokens(&text),
        (Prompt::Text(text), AddSpecialTokens::No) => tokenizer.encode(&text),
    };
    prompts.into_iter().map(ids).collect()
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
