//! Paths and their handlers.

mod generation;
mod logprobs;
mod models;
mod prompt;
mod tokens;

use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::extract::{OriginalUri, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use embodied_r_inference::{GenerationOptions, PromptRequest};
use serde_json::json;

use crate::admission::Permit;
use crate::app::Shared;
use crate::body::{Body, parse};
use crate::budget::Reserved;
use crate::metrics::Outcome;
use crate::refusal::Refusal;
use crate::request::Settings;
use crate::request::chat::ChatRequest;
use crate::request::completion::{CompletionRequest, Echo};
use crate::request::responses::ResponsesRequest;
use crate::response::{EchoedLogprobs, EchoedPrompt, Envelope, Form, Responses};
use generation::{Prompts, ResponseBuilder};
use logprobs::LogprobMemory;
use prompt::{chat_prompt, ids, texts, within_context};

/// Bytes of events that may wait for a client. A stream that is read more slowly than it is generated ends here.
const MAX_BACKLOG_BYTES: usize = 1 << 20;

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
    app.metrics.engine(&app.engine.stats());
    app.metrics.request_memory(app.request_memory.used());
    if let Some(media) = &app.model.media {
        app.metrics.embedding_cache(&media.embedding_cache);
    }
    match app.metrics.text(app.admission.admitted()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => Refusal::failed(error).into_response(),
    }
}

async fn chat(State(app): State<Shared>, body: Body) -> Response {
    app.respond(chat_response(&app, body).await)
}

async fn responses(State(app): State<Shared>, body: Body) -> Response {
    app.respond(responses_response(&app, body).await)
}

async fn completions(State(app): State<Shared>, body: Body) -> Response {
    app.respond(completions_response(&app, body).await)
}

async fn chat_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let (request, memory) = parse(app, body, ChatRequest::parse).await?;
    let ChatRequest { conversation, settings } = request;
    let permit = app.admission.admit(settings.n)?;
    let logprobs = memory.memory.another();
    let prompt = chat_prompt(app, "messages", conversation, Some(&settings), memory).await?;
    let form = Form::Chat;
    let input = Input { param: "messages", prompts: vec![prompt], form, logprobs };
    generate(app, input, settings, arrived, permit).await
}

async fn responses_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let (request, memory) = parse(app, body, ResponsesRequest::parse).await?;
    let ResponsesRequest { conversation, settings, mut repeated } = request;
    let permit = app.admission.admit(settings.n)?;
    let logprobs = memory.memory.another();
    let prompt = chat_prompt(app, "input", conversation, Some(&settings), memory).await?;
    repeated.insert("temperature".to_owned(), settings.sampling.temperature.into());
    repeated.insert("top_p".to_owned(), settings.sampling.top_p.into());
    let response = Responses::new(&app.model.name, repeated);
    let form = Form::Responses(Box::new(response));
    let input = Input { param: "input", prompts: vec![prompt], form, logprobs };
    generate(app, input, settings, arrived, permit).await
}

async fn completions_response(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let (request, memory) = parse(app, body, CompletionRequest::parse).await?;
    let CompletionRequest { prompts, special_tokens, echo, cache_salt, settings } = request;
    let permit = app.admission.admit(settings.n.saturating_mul(prompts.len()))?;
    let most = app.model.max_model_len;
    let logprobs = memory.memory.another();
    let echoed_logprobs = match settings.sampling.prompt_logprobs {
        Some(_) => EchoedLogprobs::Pending,
        None => EchoedLogprobs::None,
    };
    let (ids, echo) = app
        .run_blocking(move |tokenizer| {
            let _memory = memory;
            let echoed = |text| EchoedPrompt { text, logprobs: echoed_logprobs.clone() };
            let echo = match echo {
                Echo::On => texts(tokenizer, &prompts)
                    .map(|texts| Some(texts.into_iter().map(echoed).collect())),
                Echo::Off => Ok(None),
            };
            let ids =
                prompts.into_iter().map(|prompt| ids(tokenizer, prompt, special_tokens, most));
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
    let input = Input { param: "prompt", prompts, form, logprobs };
    generate(app, input, settings, arrived, permit).await
}

/// Prompts, the field that they came from, the response format, and the memory for its log-probabilities.
struct Input {
    param: &'static str,
    prompts: Vec<embodied_r_policy::Prompt>,
    form: Form,
    logprobs: Reserved,
}

async fn generate(
    app: &Shared,
    input: Input,
    settings: Settings,
    arrived: Instant,
    permit: Permit,
) -> Result<Response, Refusal> {
    let Input { param, prompts, form, logprobs } = input;
    let memory = LogprobMemory::of_echo(&app.request_memory, logprobs, &settings, &prompts)?;
    let after = |prompt: &embodied_r_policy::Prompt| {
        settings.sampling_after(param, prompt.len(), &app.model)
    };
    let samplings = prompts.iter().map(after).collect::<Result<Vec<_>, _>>()?;
    let of_response = Prompts::new(&prompts, &settings, memory);
    let stream = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    let request = |(prompt, sampling)| PromptRequest::new(prompt, settings.n, stream, &sampling);
    let requests = prompts.into_iter().zip(samplings).map(request).collect();
    let (max_backlog_bytes, permit) = (MAX_BACKLOG_BYTES, Some(permit as _));
    let options = GenerationOptions { max_backlog_bytes, permit };
    let generation = app.engine.submit(requests, options);
    let envelope = Envelope::new(form, &app.model);
    let builder = ResponseBuilder::new(app, (generation, arrived), settings, envelope, of_response);
    builder.send().await
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
