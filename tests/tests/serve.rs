//! `embodied-r serve` from its clients' side.

mod api;
pub(crate) mod client;
mod limits;
mod load;
mod memory;
mod options;
mod videos;

use std::process::Stdio;
use std::time::{Duration, Instant};

use client::{Response, Server, chat, completion};
use embodied_r_policy::ModelType;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_tests::{stderr, stderr_of, tiny_model};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// The texts of a response's choices.
fn texts(answer: &Response) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let text = |choice: &Value| {
        let text = choice.get("text").or_else(|| choice["message"].get("content"));
        text.unwrap().as_str().unwrap().to_owned()
    };
    answer["choices"].as_array().unwrap().iter().map(text).collect()
}

/// A stream's choices as text and finish reason, like [`choices`].
fn streamed_choices(stream: &Response, count: usize) -> Vec<(String, Value)> {
    let mut choices = vec![(String::new(), Value::Null); count];
    for event in stream.events() {
        for choice in event["choices"].as_array().unwrap() {
            let (text, finish) = &mut choices[choice["index"].as_u64().unwrap() as usize];
            assert!(finish.is_null(), "an event follows the finish reason: {stream:?}");
            let piece = choice.get("text").or_else(|| choice["delta"].get("content"));
            text.push_str(piece.and_then(Value::as_str).unwrap_or_default());
            *finish = choice["finish_reason"].clone();
        }
    }
    choices
}

/// A response's choices as text and finish reason.
fn choices(answer: &Response) -> Vec<(String, Value)> {
    let finish = answer.json()["choices"].as_array().unwrap().clone();
    let finish = finish.iter().map(|choice| choice["finish_reason"].clone());
    texts(answer).into_iter().zip(finish).collect()
}

#[test]
fn a_stream_has_the_choices_and_usage_of_a_whole_response() {
    tiny_model::FAMILIES.into_iter().for_each(streams_a_whole_response);
}

fn streams_a_whole_response(family: ModelType) {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write_family(&dir.path().join("model"), family);
    let server = Server::launch(dir, &[], None);
    let fields = json!({"n": 3, "seed": 7, "temperature": 1, "max_tokens": 40});
    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    for (path, body) in [
        (CHAT, chat("where is the lamp?", fields.clone())),
        (COMPLETIONS, completion(json!(["a lamp", "the chair"]), fields)),
    ] {
        let answer = server.post(path, &body);
        let mut streamed = body.clone();
        streamed.as_object_mut().unwrap().extend(stream.as_object().unwrap().clone());
        let streamed = server.post(path, &streamed);
        let expected = choices(&answer);
        assert_eq!(streamed_choices(&streamed, expected.len()), expected);
        let events = streamed.events();
        let (last, others) = events.split_last().unwrap();
        assert_eq!(last["usage"], answer.json()["usage"]);
        assert_eq!(last["choices"], json!([]));
        assert!(others.iter().all(|event| event["usage"].is_null()));
    }
}

#[test]
fn the_answers_depend_on_the_seed() {
    let server = Server::start(&[]);
    let sample = |seed: i64| {
        let fields = json!({"n": 2, "seed": seed, "temperature": 1, "max_tokens": 30});
        texts(&server.post(CHAT, &chat("where is the lamp?", fields)))
    };
    let first = sample(7);
    assert_ne!(first[0], first[1]);
    assert_eq!(sample(7), first);
    assert_ne!(sample(-8), first);
}

#[test]
fn prompts_of_one_request_are_completed_as_each_alone_from_text_or_token_ids() {
    let server = Server::start(&[]);
    let tokenizer = Tokenizer::from_dir(&server.model_dir()).unwrap();
    let prompts = ["a lamp is left of", "Question: where", "think"];
    let fields = json!({"temperature": 0, "max_tokens": 12});
    let complete =
        |prompt: Value| texts(&server.post(COMPLETIONS, &completion(prompt, fields.clone())));
    let alone: Vec<String> = prompts.iter().flat_map(|prompt| complete(json!(prompt))).collect();
    assert_eq!(complete(json!(prompts)), alone);
    let ids = prompts.map(|prompt| tokenizer.encode(prompt).unwrap());
    assert_eq!(complete(json!(ids)), alone);
    assert_eq!(complete(json!(ids[1])), alone[1..2]);
}

#[test]
fn a_stop_string_ends_the_text_and_appears_in_no_event() {
    let server = Server::start(&[]);
    let fields = json!({"seed": 3, "temperature": 1, "max_tokens": 60, "ignore_eos": true});
    let full = texts(&server.post(CHAT, &chat("where?", fields.clone()))).remove(0);
    let letters: Vec<char> = full.chars().collect();
    let stop: String = letters[letters.len() / 2..][..3].iter().collect();
    let cut = &full[..full.find(&stop).unwrap()];
    let mut body = chat("where?", fields);
    body["stop"] = json!(["never generated", stop]);
    let answer = server.post(CHAT, &body);
    assert_eq!(choices(&answer), [(cut.to_owned(), json!("stop"))]);
    assert_eq!(answer.json()["choices"][0]["stop_reason"], json!(stop));
    body["stream"] = json!(true);
    assert_eq!(streamed_choices(&server.post(CHAT, &body), 1), [(cut.to_owned(), json!("stop"))]);
}

#[test]
fn a_stop_token_ends_the_text_before_it() {
    let server = Server::start(&[]);
    let tokenizer = Tokenizer::from_dir(&server.model_dir()).unwrap();
    let all: Vec<usize> = (0..tokenizer.len()).collect();
    let fields = json!({"temperature": 0, "ignore_eos": true, "stop_token_ids": all});
    let answer = server.post(COMPLETIONS, &completion("a lamp", fields));
    assert_eq!(choices(&answer), [(String::new(), json!("stop"))]);
    assert_eq!(answer.json()["usage"]["completion_tokens"], 1);
    assert!(answer.json()["choices"][0]["stop_reason"].is_u64(), "{answer:?}");
}

#[test]
fn every_token_has_a_log_probability_and_its_bytes() {
    let server = Server::start(&[]);
    let fields = json!({"temperature": 0, "max_tokens": 20, "ignore_eos": true, "logprobs": true,
        "top_logprobs": 3});
    let answer = server.post(CHAT, &chat("where?", fields)).json();
    let choice = &answer["choices"][0];
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 20);
    for token in tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy decoding chooses the most probable token.
        assert_eq!(top[0]["logprob"], token["logprob"]);
        assert!(token["logprob"].as_f64().unwrap() < 0.0);
        let logprob = |i: usize| top[i]["logprob"].as_f64().unwrap();
        assert!(logprob(0) >= logprob(1) && logprob(1) >= logprob(2), "{token}");
    }
    let bytes = tokens.iter().flat_map(|token| token["bytes"].as_array().unwrap());
    let bytes: Vec<u8> = bytes.map(|byte| byte.as_u64().unwrap() as u8).collect();
    let content = choice["message"]["content"].as_str().unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), content);
}

#[test]
fn log_probabilities_of_a_completion_have_the_offsets_of_their_tokens() {
    let server = Server::start(&[]);
    let fields = json!({"seed": 5, "max_tokens": 30, "ignore_eos": true, "logprobs": 2,
        "skip_special_tokens": false});
    let body = completion("a lamp", fields);
    let answer = server.post(COMPLETIONS, &body).json();
    let (text, logprobs) = (&answer["choices"][0]["text"], &answer["choices"][0]["logprobs"]);
    let text: Vec<char> = text.as_str().unwrap().chars().collect();
    let list = |field: &str| logprobs[field].as_array().unwrap().clone();
    let tokens: Vec<(Value, Value)> = list("tokens").into_iter().zip(list("text_offset")).collect();
    assert_eq!(tokens.len(), 30);
    for (token, offset) in &tokens {
        let (token, offset) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
        if !token.contains('\u{fffd}') {
            let found: String = text[offset..].iter().take(token.chars().count()).collect();
            assert_eq!(found, token);
        }
    }
    for (top, token) in list("top_logprobs").iter().zip(list("tokens")) {
        let top = top.as_object().unwrap();
        assert!(top.len() <= 3 && top.contains_key(token.as_str().unwrap()), "{top:?}");
    }
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let events = server.post(COMPLETIONS, &streamed).events();
    let offsets = events.iter().flat_map(|event| {
        event["choices"][0]["logprobs"]["text_offset"].as_array().cloned().unwrap_or_default()
    });
    assert_eq!(offsets.collect::<Vec<_>>(), list("text_offset"));
}

#[test]
fn logit_bias_and_allowed_tokens_are_applied() {
    let server = Server::start(&[]);
    let tokenizer = Tokenizer::from_dir(&server.model_dir()).unwrap();
    let a = tokenizer.encode("a").unwrap()[0];
    for fields in [json!({"logit_bias": {a.to_string(): 100}}), json!({"allowed_token_ids": [a]})] {
        let mut body = completion("lamp", fields);
        body["max_tokens"] = json!(5);
        assert_eq!(texts(&server.post(COMPLETIONS, &body)), ["aaaaa"]);
    }
}

#[test]
fn a_stop_token_is_not_sampled_before_the_minimum_number_of_tokens() {
    let server = Server::start(&[]);
    let tokenizer = Tokenizer::from_dir(&server.model_dir()).unwrap();
    let most: Vec<usize> = (10..tokenizer.len()).collect();
    let fields = json!({"seed": 1, "min_tokens": 6, "max_tokens": 50, "stop_token_ids": most});
    let answer = server.post(COMPLETIONS, &completion("lamp", fields)).json();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 6, "{answer}");
}

#[test]
fn an_echo_repeats_the_prompt() {
    let server = Server::start(&[]);
    let fields = json!({"temperature": 0, "max_tokens": 8, "n": 2});
    let completions =
        texts(&server.post(COMPLETIONS, &completion(json!(["a lamp", "b"]), fields.clone())));
    let mut body = completion(json!(["a lamp", "b"]), fields);
    body["echo"] = json!(true);
    let expected: Vec<String> = ["a lamp", "a lamp", "b", "b"]
        .iter()
        .zip(completions)
        .map(|(p, text)| format!("{p}{text}"))
        .collect();
    assert_eq!(texts(&server.post(COMPLETIONS, &body)), expected);
    body["stream"] = json!(true);
    let streamed = streamed_choices(&server.post(COMPLETIONS, &body), 4);
    assert_eq!(streamed.into_iter().map(|(text, _)| text).collect::<Vec<_>>(), expected);
}

#[test]
fn text_parts_are_joined_as_lines_of_one_message() {
    let server = Server::start(&[]);
    let fields = json!({"temperature": 0, "max_tokens": 8});
    let parts = json!([{"type": "text", "text": "a lamp"}, {"type": "text", "text": "is where?"}]);
    let mut body = chat("", fields.clone());
    body["messages"][0]["content"] = parts;
    let answer = server.post(CHAT, &body);
    assert_eq!(texts(&answer), texts(&server.post(CHAT, &chat("a lamp\nis where?", fields))));
}

#[test]
fn the_model_is_listed_and_found_by_its_name() {
    let server = Server::start(&["--max-model-len", "100"]);
    let list = server.get("/v1/models").json();
    assert_eq!(list["data"][0]["id"], "tiny");
    assert_eq!(list["data"][0]["max_model_len"], 100);
    assert_eq!(server.get("/v1/models/tiny").json()["id"], "tiny");
    assert_eq!(server.get("/v1/models/other/one").status, 404);
}

#[track_caller]
fn refused(answer: &Response, status: u16, param: Value, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = &answer.json()["error"];
    assert_eq!((&error["param"], &error["code"]), (&param, &json!(code)), "{error}");
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
}

#[track_caller]
fn refused_field(answer: &Response, param: &str) {
    assert_eq!(
        (answer.status, &answer.json()["error"]["param"]),
        (400, &json!(param)),
        "{answer:?}"
    );
}

#[test]
fn unsupported_requests_are_refused_with_the_field_at_fault() {
    let server = Server::start(&["--max-model-len", "100"]);
    for (fields, param, code) in [
        (json!({"temperature": "hot"}), "temperature", "invalid_value"),
        (json!({"top_p": 0}), "top_p", "invalid_value"),
        (json!({"n": 129}), "n", "invalid_value"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop", "invalid_value"),
        (json!({"logit_bias": {"9999": 1}}), "logit_bias", "invalid_value"),
        (json!({"tools": [{"type": "function"}]}), "tools", "unsupported_parameter"),
        (
            json!({"response_format": {"type": "json_object"}}),
            "response_format",
            "unsupported_parameter",
        ),
        (json!({"guided_json": {}}), "guided_json", "unsupported_parameter"),
        (json!({"max_tokens": 101}), "messages", "context_length_exceeded"),
        (json!({"messages": null}), "messages", "missing_required_parameter"),
        (
            json!({"messages": [{"role": "robot", "content": ""}]}),
            "messages[0].role",
            "invalid_value",
        ),
    ] {
        refused(&server.post(CHAT, &chat("a", fields)), 400, json!(param), code);
    }
    let long = chat(&"lamp ".repeat(200), json!({}));
    refused(&server.post(CHAT, &long), 400, json!("messages"), "context_length_exceeded");
    let other = chat("a", json!({"model": "other"}));
    refused(&server.post(CHAT, &other), 404, json!("model"), "model_not_found");
    refused(&server.post("/v1/embeddings", &json!({})), 404, Value::Null, "unknown_url");
    refused(&server.get(CHAT), 405, Value::Null, "method_not_allowed");
    let broken = server.open("POST", CHAT, "{\"model\": ").response();
    refused(&broken, 400, Value::Null, "invalid_json");
    assert!(server.metric("requests_total{outcome=\"refused\"}") >= 14.0);
}

#[test]
fn images_are_refused_with_a_clear_message() {
    let server = Server::start(&[]);
    let mut body = chat("", json!({}));
    body["messages"][0]["content"] =
        json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]);
    let answer = server.post(CHAT, &body);
    assert_eq!(answer.status, 400);
    let error = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(error.contains("image_url") && error.contains("no vision encoder"), "{error}");
}

#[test]
fn a_body_above_the_size_limit_is_refused() {
    let server = Server::start(&[]);
    let answer = server.post(CHAT, &chat(&"a".repeat(17 << 20), json!({})));
    refused(&answer, 413, Value::Null, "request_too_large");
}

#[test]
fn requests_without_the_right_key_are_refused() {
    let server = Server::start_with(&[], Some("sk-right"));
    assert_eq!(server.get("/v1/models").status, 200);
    let wrong = server.with_key("sk-wrong");
    refused(&wrong.get("/v1/models"), 401, Value::Null, "invalid_api_key");
    refused(&wrong.post(CHAT, &chat("a", json!({}))), 401, Value::Null, "invalid_api_key");
    assert_eq!(wrong.get("/health").status, 200);
}

#[test]
fn a_public_server_without_a_key_prints_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let mut command = client::command(dir.path());
    command.args(["--host", "0.0.0.0", "--max-model-len", "9000"]);
    let output = command.env_remove("EMBODIED_R_API_KEY").stdin(Stdio::null()).output().unwrap();
    let stderr = stderr(&output);
    assert!(stderr.contains("EMBODIED_R_API_KEY"), "{stderr}");
    assert!(
        stderr.contains("`--max-model-len` must be at least 2")
            && stderr.contains("8192, not 9000"),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(2));
}

/// A request that keeps the engine busy for seconds.
fn long(fields: Value) -> Value {
    let mut body = completion("a lamp", fields);
    let more = json!({"max_tokens": 8000, "ignore_eos": true, "temperature": 1, "stream": true});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn a_full_queue_refuses_requests_until_there_is_room() {
    let server = Server::start(&["--max-num-seqs", "1", "--max-queue", "0"]);
    let mut running = server.open("POST", COMPLETIONS, &long(json!({})).to_string());
    running.first_event();
    let small = completion("a lamp", json!({"max_tokens": 2}));
    let answer = server.post(COMPLETIONS, &small);
    refused(&answer, 429, Value::Null, "queue_full");
    assert!(answer.headers.contains("retry-after: 1"), "{answer:?}");
    assert_eq!(server.metric("requests_total{outcome=\"overloaded\"}"), 1.0);
    drop(running);
    server.wait_for("sequences_running", 0.0);
    assert_eq!(server.post(COMPLETIONS, &small).status, 200);
}

#[test]
fn a_disconnected_client_cancels_its_request() {
    let server = Server::start(&[]);
    let mut stream = server.open("POST", COMPLETIONS, &long(json!({"n": 4})).to_string());
    stream.first_event();
    let mut unstreamed = long(json!({"n": 4}));
    unstreamed["stream"] = json!(false);
    let response = server.open("POST", COMPLETIONS, &unstreamed.to_string());
    server.wait_for("sequences_running", 8.0);
    drop((stream, response));
    server.wait_for("requests_total{outcome=\"cancelled\"}", 2.0);
    server.wait_for("sequences_running", 0.0);
    assert_eq!(server.metric("requests_total{outcome=\"completed\"}"), 0.0);
    let generated = server.metric("generated_tokens_total");
    assert!(generated < 8.0 * 8000.0, "{generated} tokens: the requests were not cancelled");
}

#[test]
fn a_terminated_server_finishes_running_requests_and_refuses_new_ones() {
    let server = Server::start(&[]);
    let mut running = server.open("POST", COMPLETIONS, &long(json!({})).to_string());
    running.first_event();
    server.terminate();
    let began = Instant::now();
    while server.get("/health").status != 503 {
        assert!(began.elapsed() < Duration::from_secs(10), "the server does not drain");
    }
    let small = completion("a lamp", json!({"max_tokens": 2}));
    refused(&server.post(COMPLETIONS, &small), 503, Value::Null, "stopping");
    let rest = running.rest();
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_server_past_its_drain_timeout_cancels_running_requests() {
    let server = Server::start(&["--drain-timeout", "0"]);
    let mut running = server.open("POST", COMPLETIONS, &long(json!({"n": 8})).to_string());
    running.first_event();
    server.terminate();
    let rest = running.rest();
    assert!(rest.contains("\"code\":\"stopping\"") && rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_missing_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = stderr_of(&mut client::command(dir.path()), 1);
    assert!(stderr.contains("`model`"), "{stderr}");
}
