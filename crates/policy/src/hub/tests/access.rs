//! Tokens, and what the hub says about a model that it does not give.

use std::collections::BTreeSet;

use embodied_r_test_server::Server as HttpServer;

use super::*;

/// The message when the list of files is answered with a status and the hub's code.
fn refused(status: u16, code: &'static str, token: Option<&str>) -> String {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["config.json", "model.safetensors"])
        .fails(LIST, &[Fault::Status(status, code)]);
    let mut hub = hub(cache.path(), Some(&server));
    hub.environment.token = token.map(str::to_owned);
    let message = hub.resolve("org/model", None, Needs::Decoder).unwrap_err().to_string();
    assert_eq!(server.requests().len(), 1, "a refusal is final");
    message.replace(&server.hub.url(), "URL")
}

#[test]
fn the_hub_gets_the_token_and_the_storage_does_not() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["config.json", "model.safetensors"]);
    find(cache.path(), Some(&server), "org/model").unwrap();
    let tokens = |host: &HttpServer| -> BTreeSet<Option<String>> {
        let requests = host.requests().into_iter();
        requests.map(|request| request.header("authorization").map(str::to_owned)).collect()
    };
    assert_eq!(tokens(&server.hub), BTreeSet::from([Some("Bearer secret".to_owned())]));
    assert_eq!(tokens(&server.storage), BTreeSet::from([None]));
}

#[test]
fn without_a_token_none_is_sent() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["config.json", "model.safetensors"]);
    let mut hub = hub(cache.path(), Some(&server));
    hub.environment.token = None;
    hub.resolve("org/model", None, Needs::Decoder).unwrap();
    assert!(server.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_gated_model_says_where_to_accept_its_terms() {
    for status in [401, 403] {
        assert_eq!(
            refused(status, "GatedRepo", None),
            "cannot download `org/model` (main) from the Hugging Face Hub: it is gated; accept its terms at \
             `URL/org/model` and set `HF_TOKEN` to a token of that account"
        );
    }
}

#[test]
fn a_wrong_name_is_told_from_a_missing_token_and_a_wrong_one() {
    let unknown = refused(401, "RepoNotFound", None);
    assert!(
        unknown.contains("there is no such repository, or it is private; check the name"),
        "{unknown}"
    );
    let without = refused(401, "", None);
    assert!(without.contains("set `HF_TOKEN` to a token that may read it"), "{without}");
    let wrong = refused(401, "", Some("secret"));
    assert!(wrong.contains("check that the token in `HF_TOKEN` is valid"), "{wrong}");
    assert!(!wrong.contains("secret"), "{wrong}");
    let revision = refused(404, "RevisionNotFound", None);
    assert!(revision.contains("no such revision"), "{revision}");
}

#[test]
fn an_unknown_model_is_reported_by_name() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["config.json"]);
    let message = find(cache.path(), Some(&server), "org/other").unwrap_err().to_string();
    let expected =
        "cannot download `org/other` (main) from the Hugging Face Hub: there is no such repository";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_token_or_an_endpoint_that_cannot_be_used_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["config.json"]);
    let mut hub = hub(cache.path(), Some(&server));
    let mut fails = |change: &dyn Fn(&mut Environment)| {
        let before = hub.environment.clone();
        change(&mut hub.environment);
        let message = hub.resolve("org/model", None, Needs::Decoder).unwrap_err().to_string();
        hub.environment = before;
        message
    };
    let token = fails(&|environment| environment.token = Some("two\nlines".into()));
    assert!(token.contains("`HF_TOKEN` has characters") && !token.contains("two"), "{token}");
    for endpoint in ["huggingface.co", "file:///etc", "https//huggingface.co"] {
        let message = fails(&|environment| environment.endpoint = endpoint.into());
        assert!(message.contains(&format!("`HF_ENDPOINT` is `{endpoint}`")), "{message}");
    }
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn an_endpoint_may_have_a_path() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::of(&["config.json", "model.safetensors"]);
    let mut hub = hub(cache.path(), Some(&server));
    hub.environment.endpoint += "/mirror/";
    hub.resolve("org/model", None, Needs::Decoder).unwrap_err();
    let requests = server.requests();
    assert_eq!(requests[0].path, "/mirror/api/models/org/model/revision/main");
}
