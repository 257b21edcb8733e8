use std::sync::Arc;

use embodied_r_policy::SamplingSettings;
use embodied_r_policy::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Value, json};

use super::chat::{ChatRequest, Conversation};
use super::completion::{AddSpecialTokens, CompletionRequest, Echo, Prompt};
use super::responses::ResponsesRequest;
use super::*;
use crate::refusal::Refusal;

/// A model with 300 token ids, a context length of 100, and the stop ids 2 and 0.
fn model() -> Model {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/base");
    let tokenizer = Arc::new(Tokenizer::from_dir(base.as_ref()).unwrap());
    let defaults =
        SamplingSettings { temperature: Some(0.7), top_k: Some(20), ..SamplingSettings::default() };
    Model {
        name: "m".into(),
        root: "models/m".into(),
        system_fingerprint: "fp".into(),
        tokenizer,
        defaults,
        vocabulary: 300,
        max_model_len: 100,
        media: None,
    }
}

fn chat(fields: Value) -> Result<ChatRequest, Refusal> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    ChatRequest::parse(body.to_string().as_bytes(), &model())
}

fn completion(fields: Value) -> Result<CompletionRequest, Refusal> {
    let mut body = json!({"model": "m", "prompt": "hi"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    CompletionRequest::parse(body.to_string().as_bytes(), &model())
}

/// The `param` of a refusal.
fn param(refused: Result<impl std::fmt::Debug, Refusal>) -> String {
    refused.unwrap_err().json()["error"]["param"].as_str().unwrap().to_owned()
}

#[test]
fn missing_fields_have_the_models_defaults() {
    let settings = chat(json!({})).unwrap().settings;
    assert_eq!((settings.sampling.temperature, settings.sampling.top_k), (0.7, 20));
    assert_eq!(settings.sampling.stop_ids, [2, 0]);
    assert_eq!((settings.n, settings.seed, settings.response_mode), (1, None, ResponseMode::Whole));
    assert_eq!(settings.special, SpecialTokens::Skip);
    assert_eq!(settings.sampling.logprobs, None);
}

#[test]
fn the_fields_of_a_request_reach_the_sampling_parameters() {
    let fields = json!({
        "temperature": 0, "top_p": 0.9, "top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1,
        "presence_penalty": -0.5, "frequency_penalty": 0.5, "logit_bias": {"7": -100, "8": 1.5},
        "allowed_token_ids": [7, 8], "min_tokens": 3, "stop_token_ids": [9], "ignore_eos": true,
        "seed": -1, "n": 4, "stop": "end", "max_completion_tokens": 10, "logprobs": true,
        "top_logprobs": 5, "stream": true, "stream_options": {"include_usage": true},
        "skip_special_tokens": false});
    let settings = chat(fields).unwrap().settings;
    let sampling = &settings.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.0, 0.9, 0));
    assert_eq!((sampling.min_p, sampling.repetition_penalty), (0.1, 1.1));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (-0.5, 0.5));
    assert_eq!(sampling.logit_bias, [(7, -100.0), (8, 1.5)]);
    assert_eq!(sampling.allowed_token_ids.as_deref(), Some([7, 8].as_slice()));
    assert_eq!((sampling.min_new_tokens, sampling.stop_ids.as_slice()), (3, [9].as_slice()));
    assert_eq!(sampling.logprobs, Some(5));
    assert_eq!((settings.n, settings.seed, settings.max_tokens), (4, Some(u64::MAX), Some(10)));
    assert_eq!(settings.stop, ["end"]);
    assert_eq!(settings.response_mode, ResponseMode::Stream(Include::Usage));
    assert_eq!(settings.special, SpecialTokens::Keep);
}

#[test]
fn requested_stop_ids_are_added_to_the_models_own() {
    let settings = chat(json!({"stop_token_ids": [9]})).unwrap().settings;
    assert_eq!(settings.sampling.stop_ids, [2, 0, 9]);
}

#[test]
fn an_invalid_field_is_named() {
    for (fields, field) in [
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"top_k": 20.0}), "top_k"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"frequency_penalty": "much"}), "frequency_penalty"),
        (json!({"logit_bias": {"300": 1}}), "logit_bias"),
        (json!({"logit_bias": {"7": 101}}), "logit_bias"),
        (json!({"allowed_token_ids": []}), "allowed_token_ids"),
        (json!({"stop_token_ids": ["a"]}), "stop_token_ids"),
        (json!({"stop": ""}), "stop"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"n": 0}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 3, "max_completion_tokens": 4}), "max_completion_tokens"),
        (json!({"max_tokens": 3, "min_tokens": 4}), "min_tokens"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"stream_options": {}}), "stream_options"),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
        ),
        (json!({"functions": [{}]}), "functions"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": null}]}), "messages[0].content"),
        (json!({"messages": [{"role": "robot", "content": "7"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": "a", "name": 7}]}), "messages[0].name"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs.messages"),
        (json!({"chat_template_kwargs": 7}), "chat_template_kwargs"),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]}),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ] {
        assert_eq!(param(chat(fields)), field);
    }
}

#[test]
fn message_content_may_be_text_or_parts() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let messages = json!([{"role": "developer", "content": "s"}, {"role": "user", "content": parts},
        {"role": "assistant", "content": "c", "refusal": null, "tool_calls": []}]);
    let conversation = chat(json!({"messages": messages})).unwrap().conversation;
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    assert_eq!(
        conversation.messages,
        [message("system", "s"), message("user", "a\nb"), message("assistant", "c")]
    );
}

#[test]
fn fields_that_cannot_change_the_answer_are_ignored() {
    let request = chat(json!({
        "store": true, "metadata": {"a": "b"}, "service_tier": "flex", "request_id": "r",
        "cache_salt": "s", "best_of": 1, "reasoning_effort": "low", "user": "u", "unknown": {},
        "tools": [], "tool_choice": "auto", "parallel_tool_calls": true, "priority": 3,
        "messages": [{"role": "user", "name": "n", "unknown": 7, "content": [
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}],
    }));
    let Conversation { messages, variables, cache_salt, .. } = request.unwrap().conversation;
    assert_eq!(messages, [json!({"role": "user", "name": "n", "content": "a"})]);
    assert_eq!(Value::from(variables), json!({"reasoning_effort": "low"}));
    assert_eq!(cache_salt.as_deref(), Some("s"));
}

#[test]
fn histories_with_tools_reach_the_template() {
    let call = |arguments: Value| json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}});
    let messages = json!([
        {"role": "assistant", "content": null, "tool_calls": [call(json!("{\"a\": 1}")), call(json!(""))]},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
        {"role": "assistant", "reasoning_content": "so"},
    ]);
    let request =
        chat(json!({"messages": messages, "chat_template_kwargs": {"enable_thinking": false}}));
    let Conversation { messages, variables, .. } = request.unwrap().conversation;
    let calls = json!([call(json!({"a": 1})), call(json!({}))]);
    assert_eq!(
        messages,
        [
            json!({"role": "assistant", "tool_calls": calls, "content": ""}),
            json!({"role": "tool", "tool_call_id": "c", "content": "7"}),
            json!({"role": "assistant", "reasoning_content": "so", "content": ""}),
        ]
    );
    assert_eq!(Value::from(variables), json!({"enable_thinking": false}));
}

fn responses(fields: Value) -> Result<ResponsesRequest, Refusal> {
    let mut body = json!({"model": "m", "input": "hi"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    ResponsesRequest::parse(body.to_string().as_bytes(), &model())
}

#[test]
fn the_input_of_a_response_is_a_conversation() {
    let input = json!([
        {"role": "developer", "content": "d"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "id": "fc"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{\"x\": 1}"},
        {"type": "function_call_output", "call_id": "1", "output": "7"},
        {"type": "message", "id": "msg", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
    ]);
    let request = responses(json!({"instructions": "i", "input": input, "max_output_tokens": 9}));
    let request = request.unwrap();
    let call = |id: &str, name: &str, arguments: Value| {
        let function = json!({"name": name, "arguments": arguments});
        json!({"id": id, "type": "function", "function": function})
    };
    let calls = json!([call("1", "f", json!({})), call("2", "g", json!({"x": 1}))]);
    assert_eq!(
        request.conversation.messages,
        [
            json!({"role": "system", "content": "i"}),
            json!({"role": "system", "content": "d"}),
            json!({"role": "user", "content": "a"}),
            json!({"role": "assistant", "tool_calls": calls, "content": ""}),
            json!({"role": "tool", "tool_call_id": "1", "content": "7"}),
            json!({"role": "assistant", "content": "b"}),
        ]
    );
    assert_eq!(request.settings.max_tokens, Some(9));
    assert_eq!(request.repeated["instructions"], "i");
    assert_eq!(request.repeated["max_output_tokens"], 9);
}

#[test]
fn a_response_that_needs_more_than_text_is_refused_by_field() {
    for (fields, field) in [
        (json!({"input": null}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": [{"type": "item_reference", "id": "a"}]}), "input[0].type"),
        (json!({"input": [{"role": "user", "content": 7}]}), "input[0].content"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"conversation": "c"}), "conversation"),
        (json!({"tools": [{"type": "web_search"}]}), "tools"),
        (json!({"text": {"format": {"type": "json_object"}}}), "text.format"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"background": true}), "background"),
        (json!({"n": 2}), "n"),
        (json!({"top_logprobs": 99}), "top_logprobs"),
    ] {
        assert_eq!(param(responses(fields)), field);
    }
    let accepted = json!({"store": true, "include": ["reasoning.encrypted_content"], "tools": [],
        "text": {"format": {"type": "text"}, "verbosity": "low"}, "truncation": "disabled",
        "reasoning": {"effort": "low", "summary": "auto"}, "service_tier": "auto",
        "stream": true, "stream_options": {"include_obfuscation": false}});
    let accepted = responses(accepted).unwrap();
    assert_eq!(accepted.conversation.variables["reasoning_effort"], "low");
    assert_eq!(accepted.settings.sampling.logprobs, None);
}

#[test]
fn a_text_model_refuses_an_image_and_names_its_field() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]);
    let refused = chat(json!({"messages": [{"role": "user", "content": parts}]}));
    assert_eq!(param(refused), "messages[0].content[1].type");
}

#[test]
fn a_prompt_is_text_or_ids_or_several_of_either() {
    let prompts =
        |prompt: Value| completion(json!({"prompt": prompt})).map(|request| request.prompts);
    let text = |text: &str| Prompt::Text(text.into());
    assert_eq!(prompts(json!("a")).unwrap(), [text("a")]);
    assert_eq!(prompts(json!(["a", "b"])).unwrap(), [text("a"), text("b")]);
    assert_eq!(prompts(json!([1, 2])).unwrap(), [Prompt::Ids(vec![1, 2])]);
    assert_eq!(prompts(json!([[1], [2]])).unwrap(), [Prompt::Ids(vec![1]), Prompt::Ids(vec![2])]);
    for wrong in [json!([]), json!([[]]), json!([300]), json!({}), json!([1, "a"]), json!(null)] {
        assert_eq!(param(prompts(wrong)), "prompt");
    }
}

#[test]
fn a_completion_has_openais_defaults() {
    let request = completion(json!({})).unwrap();
    assert_eq!(request.settings.max_tokens, Some(16));
    assert_eq!((request.echo, request.special_tokens), (Echo::Off, AddSpecialTokens::Yes));
}

#[test]
fn an_echo_may_have_log_probabilities_and_no_completion() {
    let request = completion(json!({"echo": true})).unwrap();
    assert_eq!((request.echo, request.settings.sampling.prompt_logprobs), (Echo::On, None));
    let request = completion(json!({"echo": true, "logprobs": 1, "max_tokens": 0})).unwrap();
    assert_eq!(request.settings.sampling.prompt_logprobs, Some(1));
    assert_eq!(request.settings.max_tokens, Some(0));
    let sampling = request.settings.sampling_after("prompt", 99, &model()).unwrap();
    assert_eq!(sampling.max_new_tokens, 1);
    assert_eq!(param(completion(json!({"max_tokens": 0}))), "max_tokens");
}

#[test]
fn best_of_is_refused_unless_it_equals_n() {
    assert!(completion(json!({"best_of": 2, "n": 2})).is_ok());
    assert_eq!(param(completion(json!({"best_of": 2}))), "best_of");
}

#[test]
fn a_completion_is_limited_to_the_rest_of_the_context() {
    let settings = chat(json!({})).unwrap().settings;
    let sampling = settings.sampling_after("messages", 30, &model()).unwrap();
    assert_eq!(sampling.max_new_tokens, 70);
    assert!(settings.sampling_after("messages", 99, &model()).is_ok());
    for prompt in [0, 100, 101] {
        assert_eq!(param(settings.sampling_after("messages", prompt, &model())), "messages");
    }
    let settings = chat(json!({"max_tokens": 71})).unwrap().settings;
    let refusal = settings.sampling_after("messages", 30, &model()).unwrap_err().json();
    assert_eq!(refusal["error"]["code"], "context_length_exceeded");
}

#[test]
fn an_unknown_model_is_a_404() {
    let refusal = chat(json!({"model": "other"})).unwrap_err();
    assert_eq!(refusal.status(), 404);
}

#[test]
fn a_sequence_to_detokenize_may_be_longer_than_the_vocabulary() {
    let tokens =
        |ids: &[u32]| tokenize::tokens(json!({"tokens": ids}).to_string().as_bytes(), &model());
    assert_eq!(tokens(&[7; 301]).unwrap(), [7; 301]);
    let message = tokens(&[300]).unwrap_err().json()["error"]["message"].clone();
    assert_eq!(message, "`tokens` must be a list of token ids below 300, not [300]");
}
