//! What a field that this server does not read would do in OpenAI's or vLLM's.

use serde_json::{Value, json};

/// The effect of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// None on the response: a label, or a value that equals this server's behavior.
    None,
    /// It changes the response, in a way that this server does not support.
    Unsupported,
    /// Neither API has such a field.
    Unknown,
}

/// Fields that never change the response of a model like those served here: labels, hints about caching, billing and
/// priority, and options of features that the request would have to use.
const LABELS: [&str; 23] = [
    "cache_control",
    "include_obfuscation",
    "include_reasoning",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "priority",
    "prompt_cache_breakpoint",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "request_id",
    "return_mm_kwargs",
    "return_token_offsets",
    "routed_experts_prompt_start",
    "safety_identifier",
    "service_tier",
    "session_id",
    "store",
    "truncation_side",
    "user",
    "uuid",
    "verbosity",
];

/// Fields of features without a value that this server's behavior equals.
const FEATURES: [&str; 22] = [
    "audio",
    "chat_template",
    "context_management",
    "conversation",
    "guided_choice",
    "guided_decoding_backend",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "guided_whitespace_pattern",
    "kv_transfer_params",
    "logits_processors",
    "logprob_token_ids",
    "moderation",
    "prediction",
    "prompt_embeds",
    "prompt_logprobs",
    "repetition_detection",
    "structured_outputs",
    "thinking_token_budget",
    "truncate_prompt_tokens",
    "web_search_options",
];

/// The effect of the field `field` with this value.
pub(super) fn effect(field: &str, value: &Value) -> Effect {
    if value.is_null() || LABELS.contains(&field) {
        return Effect::None;
    }
    let is = |neutral: Value| *value == neutral;
    let neutral = match field {
        "annotations" | "bad_words" | "documents" | "functions" | "tool_calls" | "tools" => {
            is(json!([]))
        }
        "tool_choice" | "function_call" => is(json!("none")) || is(json!("auto")),
        "response_format" => is(json!({"type": "text"})),
        "modalities" => is(json!(["text"])),
        "suffix" | "refusal" => is(json!("")),
        "mm_processor_kwargs" | "media_io_kwargs" | "vllm_xargs" => is(json!({})),
        "length_penalty" => value.as_f64() == Some(1.0),
        "add_generation_prompt" | "detokenize" | "spaces_between_special_tokens" => is(json!(true)),
        "add_special_tokens"
        | "background"
        | "continue_final_message"
        | "echo"
        | "include_stop_str_in_output"
        | "return_prompt_text"
        | "return_token_ids"
        | "return_tokens_as_token_ids"
        | "use_beam_search"
        | "watermarking" => is(json!(false)),
        _ if FEATURES.contains(&field) => false,
        _ => return Effect::Unknown,
    };
    if neutral { Effect::None } else { Effect::Unsupported }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_ignored_and_features_are_not() {
        for (field, value, expected) in [
            ("store", json!(true), Effect::None),
            ("service_tier", json!("flex"), Effect::None),
            ("tools", json!([]), Effect::None),
            ("tools", json!([{}]), Effect::Unsupported),
            ("tool_choice", json!("required"), Effect::Unsupported),
            ("response_format", json!({"type": "json_object"}), Effect::Unsupported),
            ("guided_json", json!({}), Effect::Unsupported),
            ("background", json!(false), Effect::None),
            ("background", json!(true), Effect::Unsupported),
            ("audio", Value::Null, Effect::None),
            ("temprature", json!(1), Effect::Unknown),
        ] {
            assert_eq!(effect(field, &value), expected, "{field}: {value}");
        }
    }
}
