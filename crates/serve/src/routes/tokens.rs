//! The tokenizer over HTTP, as in vLLM.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use embodied_r_policy::tokenizer::SpecialTokens;
use serde_json::{Value, json};

use super::prompt::{chat_ids, chat_prompt, ids, within_context};
use crate::app::Shared;
use crate::body::{Body, RequestBytes, parse};
use crate::metrics::Outcome;
use crate::refusal::Refusal;
use crate::request::completion::Prompt;
use crate::request::tokenize::{self, TokenizeInput, TokenizeRequest};

/// The size limit of a body with a text of any number of tokens.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// The paths of the tokenizer.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/tokenizer_info", get(tokenizer_info))
}

async fn tokenize(State(app): State<Shared>, body: Body) -> Response {
    let response = tokenized(&app, body).await;
    completed(&app, response)
}

async fn detokenize(State(app): State<Shared>, body: Body) -> Response {
    let response = detokenized(&app, body).await;
    completed(&app, response)
}

/// The response, which is counted.
fn completed(app: &Shared, response: Result<Response, Refusal>) -> Response {
    if response.is_ok() {
        app.metrics.ended(Outcome::Completed);
    }
    app.respond(response)
}

/// The contents of `tokenizer_config.json`, with the chat template.
async fn tokenizer_info(State(app): State<Shared>) -> Response {
    match app.model.tokenizer.config() {
        Ok(config) => Json(config).into_response(),
        Err(error) => Refusal::failed(error).into_response(),
    }
}

/// Refuses a text above this module's limit.
fn check_size(request: &RequestBytes) -> Result<(), Refusal> {
    match request.size > MAX_TEXT_BYTES {
        true => Err(Refusal::too_large(MAX_TEXT_BYTES)),
        false => Ok(()),
    }
}

async fn tokenized(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let (request, memory) = parse(app, body, TokenizeRequest::parse).await?;
    let TokenizeRequest { input, token_strs } = request;
    let tokens = match input {
        // As in vLLM, a text may be longer than the context.
        TokenizeInput::Text(text, special) => {
            check_size(&memory)?;
            let encoded = app.run_blocking(move |tokenizer| {
                let _memory = memory;
                ids(tokenizer, Prompt::Text(text), special, usize::MAX)
            });
            within_context(app, "prompt", encoded.await?)?
        }
        TokenizeInput::Chat(conversation) if conversation.media.is_empty() => {
            check_size(&memory)?;
            chat_ids(app, "messages", conversation, Vec::new(), usize::MAX, Arc::new(memory.memory))
                .await?
        }
        TokenizeInput::Chat(conversation) => {
            let prompt = chat_prompt(app, "messages", conversation, None, memory).await?;
            prompt.ids().to_vec()
        }
    };
    let tokenizer = &app.model.tokenizer;
    let strs: Option<Vec<String>> = token_strs
        .then(|| tokens.iter().map(|id| tokenizer.token(*id).unwrap_or_default()).collect());
    let (count, max_model_len) = (tokens.len(), app.model.max_model_len);
    let body = json!({"count": count, "max_model_len": max_model_len, "tokens": tokens,
        "token_strs": strs});
    Ok(Json::<Value>(body).into_response())
}

async fn detokenized(app: &Shared, body: Body) -> Result<Response, Refusal> {
    let (tokens, memory) = parse(app, body, tokenize::tokens).await?;
    let decoded = app.run_blocking(move |tokenizer| {
        let _memory = memory;
        tokenizer.decode(&tokens, SpecialTokens::Keep)
    });
    let prompt = decoded.await?.map_err(|error| Refusal::from_policy("tokens", &error))?;
    Ok(Json(json!({"prompt": prompt})).into_response())
}
