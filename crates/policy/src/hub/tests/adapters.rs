//! LoRA adapters by name.

use super::*;
use crate::lora::{CONFIG_FILE as ADAPTER_CONFIG, WEIGHTS_FILE as ADAPTER_WEIGHTS};

/// An adapter of `base`, and a model.
fn server(base: &str) -> Server {
    let config = serde_json::json!({
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"],
        "base_model_name_or_path": base,
    });
    Server::new(&[
        ("org/adapter/README.md", b"text".to_vec()),
        ("org/adapter/adapter_config.json", config.to_string().into_bytes()),
        ("org/adapter/adapter_model.safetensors", b"adapter".to_vec()),
        ("org/base/config.json", b"{}".to_vec()),
        ("org/base/model.safetensors", b"base".to_vec()),
    ])
}

#[test]
fn an_adapter_is_downloaded_with_the_base_model_that_it_names() {
    let cache = tempfile::tempdir().unwrap();
    let server = server("org/base");
    let dir = find(cache.path(), Some(&server), "org/adapter").unwrap();
    assert_eq!(names_in(&dir), [ADAPTER_CONFIG, ADAPTER_WEIGHTS]);
    let base = find(cache.path(), None, "org/base").unwrap();
    assert_eq!(std::fs::read(base.join("model.safetensors")).unwrap(), b"base");
    assert_eq!(find(cache.path(), None, "org/adapter").unwrap(), dir, "offline");
}

#[test]
fn an_adapter_alone_leaves_its_base_model_where_it_is() {
    let cache = tempfile::tempdir().unwrap();
    let server = server("org/base");
    let online = hub(cache.path(), Some(&server));
    let dir = online.resolve("org/adapter", None, Needs::Adapter).unwrap();
    assert_eq!(names_in(&dir), [ADAPTER_CONFIG, ADAPTER_WEIGHTS]);
    assert!(find(cache.path(), None, "org/base").is_err());
    let message = online.resolve("org/base", None, Needs::Adapter).unwrap_err().to_string();
    assert!(message.contains("no `adapter_config.json`"), "{message}");
}

#[test]
fn a_base_model_that_is_missing_is_an_error_before_any_work() {
    for (base, expected) in
        [("org/gone", "no such repository"), ("org/adapter", "an adapter itself")]
    {
        let cache = tempfile::tempdir().unwrap();
        let server = server(base);
        let error = find(cache.path(), Some(&server), "org/adapter").unwrap_err();
        assert!(matches!(error, Error::AdapterBase { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
