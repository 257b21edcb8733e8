//! Paths and their handlers.

mod answer;

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
use embodied_r_policy::tokenizer::{Generation, Special, Tokenizer};
use embodied_r_vision::Message;
use image::RgbImage;
use serde_json::{Value, json};

use crate::admission::{Admission, Places};
use crate::api_key::ApiKey;
use crate::driver::Driver;
use crate::media;
use crate::metrics::{Metrics, Outcome};
use crate::refusal::Refusal;
use crate::reply::{Envelope, Form};
use crate::request::chat::{ChatRequest, Conversation, PictureUrl};
use crate::request::completion::{CompletionRequest, Echo, Ends, Prompt};
use crate::request::{Model, Settings};
use answer::Answer;

/// Most bytes of a body.
const MOST_BODY_BYTES: usize = 16 << 20;

/// Most bytes of a body that may hold pictures.
const MOST_PICTURE_BODY_BYTES: usize = 128 << 20;

/// What the handlers share.
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) driver: Driver,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) api_key: Option<ApiKey>,
    /// Seconds since 1970 at which the server began.
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
        .layer(DefaultBodyLimit::max(most_body_bytes(&app)))
        .with_state(app)
}

fn most_body_bytes(app: &App) -> usize {
    match app.model.media {
        Some(_) => MOST_PICTURE_BODY_BYTES,
        None => MOST_BODY_BYTES,
    }
}

async fn unknown_path(method: Method, uri: Uri) -> Refusal {
    Refusal::unknown_path(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::wrong_method(method.as_str(), uri.path())
}

/// Lets through who shows the key.
async fn authorize(State(app): State<Shared>, request: Request, next: Next) -> Response {
    match &app.api_key {
        Some(key) if !bearer(request.headers()).is_some_and(|shown| key.is(shown)) => {
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
    match app.metrics.text(app.admission.taken()) {
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
    told(&app, chat_answer(&app, body).await)
}

async fn completions(State(app): State<Shared>, body: Body) -> Response {
    told(&app, completions_answer(&app, body).await)
}

/// The answer, or the refusal once it is counted.
fn told(app: &App, answer: Result<Response, Refusal>) -> Response {
    answer.unwrap_or_else(|refusal| {
        app.metrics.ended(Outcome::of_status(refusal.status()));
        refusal.into_response()
    })
}

fn read(app: &App, body: Body) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_large(most_body_bytes(app)),
        _ => Refusal::body(rejection.body_text()),
    })
}

async fn chat_answer(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let ChatRequest { conversation, settings } = ChatRequest::parse(&read(app, body)?, &app.model)?;
    let places = app.admission.admit(settings.n)?;
    let prompt = match conversation {
        Conversation::Text(messages) => off_the_loop(app, move |tokenizer| {
            let text = tokenizer.render(&messages, Generation::Prompt)?;
            Ok(embodied_r_policy::Prompt::from(tokenizer.encode(&text)?))
        })
        .await?
        .map_err(|error| Refusal::from_policy("messages", &error))?,
        Conversation::Pictures(messages, urls) => seen_prompt(app, messages, &urls).await?,
    };
    let asked = Asked { param: "messages", prompts: vec![prompt], form: Form::Chat };
    answer(app, asked, settings, arrived, &places).await
}

/// The prompt of a conversation with pictures, which the tower sees only if they fit the model.
async fn seen_prompt(
    app: &Shared,
    messages: Vec<Message>,
    urls: &[PictureUrl],
) -> Result<embodied_r_policy::Prompt, Refusal> {
    // The parser gives pictures to models that can see alone.
    let blind = || Refusal::failed("there is nothing to look at pictures with");
    let media = app.model.media.as_ref().ok_or_else(blind)?;
    let mut files = Vec::with_capacity(urls.len());
    for PictureUrl { param, url } in urls {
        files.push((param.clone(), media.bytes(param, url).await?));
    }
    let (gallery, most) = (media.gallery.clone(), app.model.max_model_len);
    off_the_loop(app, move |tokenizer| {
        let pictures = files.iter().map(|(param, bytes)| media::decoded(param, bytes));
        let pictures: Vec<RgbImage> = pictures.collect::<Result<_, _>>()?;
        let refused = |error: embodied_r_vision::Error| match &error {
            embodied_r_vision::Error::Policy(error) => Refusal::from_policy("messages", error),
            embodied_r_vision::Error::Proportions { .. } => {
                Refusal::about("messages", error.to_string())
            }
            _ => Refusal::failed(error),
        };
        let mut tokens = 0;
        for picture in &pictures {
            tokens += gallery.eyes().image_tokens(picture.dimensions()).map_err(refused)?;
        }
        if tokens >= most {
            return Err(Refusal::too_long("messages", tokens, 1, most));
        }
        let seen = gallery.images(&pictures.iter().collect::<Vec<_>>()).map_err(refused)?;
        gallery.eyes().prompt(tokenizer, &messages, &seen).map_err(refused)
    })
    .await?
}

async fn completions_answer(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let CompletionRequest { prompts, ends, echo, settings } =
        CompletionRequest::parse(&read(app, body)?, &app.model)?;
    let places = app.admission.admit(settings.n.saturating_mul(prompts.len()))?;
    let (prompts, texts) = off_the_loop(app, move |tokenizer| {
        let texts = match echo {
            Echo::On => Some(texts(tokenizer, &prompts)?),
            Echo::Off => None,
        };
        Ok((ids(tokenizer, prompts, ends)?, texts))
    })
    .await?
    .map_err(|error: embodied_r_policy::Error| Refusal::from_policy("prompt", &error))?;
    let prompts = prompts.into_iter().map(embodied_r_policy::Prompt::from).collect();
    let form = Form::Completion { echo: texts, n: settings.n };
    answer(app, Asked { param: "prompt", prompts, form }, settings, arrived, &places).await
}

/// Runs what takes long on a thread that may block.
async fn off_the_loop<T: Send + 'static>(
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
        Prompt::Ids(ids) => tokenizer.decode(ids, Special::Keep),
    };
    prompts.iter().map(text).collect()
}

fn ids(
    tokenizer: &Tokenizer,
    prompts: Vec<Prompt>,
    ends: Ends,
) -> embodied_r_policy::Result<Vec<Vec<u32>>> {
    let ids = |prompt| match (prompt, ends) {
        (Prompt::Ids(ids), _) => Ok(ids),
        (Prompt::Text(text), Ends::Framed) => tokenizer.encode_unframed(&text),
        (Prompt::Text(text), Ends::Bare) => tokenizer.encode(&text),
    };
    prompts.into_iter().map(ids).collect()
}

/// Prompts, the field that they came in, and the form that their answer wants.
struct Asked {
    param: &'static str,
    prompts: Vec<embodied_r_policy::Prompt>,
    form: Form,
}

async fn answer(
    app: &Shared,
    asked: Asked,
    settings: Settings,
    arrived: Instant,
    places: &Places,
) -> Result<Response, Refusal> {
    let Asked { param, prompts, form } = asked;
    let after = |prompt: &embodied_r_policy::Prompt| {
        settings.sampling_after(param, prompt.len(), &app.model)
    };
    let samplings = prompts.iter().map(after).collect::<Result<Vec<_>, _>>()?;
    let (prompt_tokens, count) =
        (prompts.iter().map(embodied_r_policy::Prompt::len).sum(), prompts.len());
    let stream = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    let running = app.driver.submit(prompts, samplings, settings.n, stream, arrived, places);
    let envelope = Envelope::new(form, &app.model.name);
    Answer::new(app, running, settings, envelope, prompt_tokens, count).send().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_a_bearers_header_alone() {
        let shown = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, header::HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(shown("Bearer sk-a").as_deref(), Some("sk-a"));
        assert_eq!(shown("bearer sk-a").as_deref(), Some("sk-a"));
        assert_eq!(shown("Basic sk-a"), None);
        assert_eq!(shown("sk-a"), None);
    }
}
