//! What is served.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::Shared;
use crate::refusal::Refusal;
use crate::request::Model;

/// The server's version.
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// The list of models, which has one.
pub(super) async fn list(State(app): State<Shared>) -> Json<Value> {
    Json(json!({"object": "list", "data": [described(&app)]}))
}

/// The model of a name.
pub(super) async fn one(
    State(app): State<Shared>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    match id {
        Ok(Path(id)) if id == app.model.name => Json(described(&app)).into_response(),
        Ok(Path(id)) => Refusal::unknown_model(&id, &app.model.name).into_response(),
        Err(_) => Refusal::undecodable_path().into_response(),
    }
}

fn described(app: &Shared) -> Value {
    let Model { name, root, max_model_len, .. } = &app.model;
    let created = app.began_s;
    let permission = json!({"id": format!("modelperm-{name}"), "object": "model_permission",
        "created": created, "allow_create_engine": false, "allow_sampling": true,
        "allow_logprobs": true, "allow_search_indices": false, "allow_view": true,
        "allow_fine_tuning": false, "organization": "*", "group": null, "is_blocking": false});
    json!({"id": name, "object": "model", "created": created, "owned_by": "embodied-r",
        "root": root, "parent": null, "max_model_len": max_model_len, "permission": [permission]})
}
