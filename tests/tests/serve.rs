//! `embodied-r serve`, as its clients see it.

#[path = "serve/client.rs"]
#[allow(dead_code)]
mod client;
mod tiny_model;

use std::process::Stdio;
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt as _;
use client::{Response, Server, chat, completion};
use embodied_r_policy::tokenizer::Tokenizer;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// The texts of an answer's choices.
fn texts(answer: &Response) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let text = |choice: &Value| {
        let text = choice.get("text").or_else(|| choice["message"].get("content"));
        text.unwrap().as_str().unwrap().to_owned()
    };
    answer["choices"].as_array().unwrap().iter().map(text).collect()
}

/// A stream's choices as an answer that is not streamed has them.
fn gathered(stream: &Response, count: usize) -> Vec<(String, Value)> {
    let mut choices = vec![(String::new(), Value::Null); count];
    for event in stream.events() {
        for choice in event["choices"].as_array().unwrap() {
            let (text, finish) = &mut choices[choice["index"].as_u64().unwrap() as usize];
            assert!(finish.is_null(), "something comes after the end: {stream:?}");
            let piece = choice.get("text").or_else(|| choice["delta"].get("content"));
            text.push_str(piece.and_then(Value::as_str).unwrap_or_default());
            *finish = choice["finish_reason"].clone();
        }
    }
    choices
}

fn whole(answer: &Response) -> Vec<(String, Value)> {
    let finish = answer.json()["choices"].as_array().unwrap().clone();
    let finish = finish.iter().map(|choice| choice["finish_reason"].clone());
    texts(answer).into_iter().zip(finish).collect()
}

#[test]
fn a_stream_tells_what_the_whole_answer_does() {
    let server = Server::start(&[]);
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
        let choices = whole(&answer);
        assert_eq!(gathered(&streamed, choices.len()), choices);
        let events = streamed.events();
        let (last, others) = events.split_last().unwrap();
        assert_eq!(last["usage"], answer.json()["usage"]);
        assert_eq!(last["choices"], json!([]));
        assert!(others.iter().all(|event| event["usage"].is_null()));
    }
}

#[test]
fn a_seed_gives_the_same_answers_and_another_gives_others() {
    let server = Server::start(&[]);
    let ask = |seed: i64| {
        let fields = json!({"n": 2, "seed": seed, "temperature": 1, "max_tokens": 30});
        texts(&server.post(CHAT, &chat("where is the lamp?", fields)))
    };
    let first = ask(7);
    assert_ne!(first[0], first[1]);
    assert_eq!(ask(7), first);
    assert_ne!(ask(-8), first);
}

#[test]
fn prompts_of_one_request_are_answered_as_each_alone_be_they_text_or_ids() {
    let server = Server::start(&[]);
    let tokenizer = Tokenizer::from_dir(&server.model_dir()).unwrap();
    let prompts = ["a lamp is left of", "Question: where", "think"];
    let fields = json!({"temperature": 0, "max_tokens": 12});
    let ask = |prompt: Value| texts(&server.post(COMPLETIONS, &completion(prompt, fields.clone())));
    let alone: Vec<String> = prompts.iter().flat_map(|prompt| ask(json!(prompt))).collect();
    assert_eq!(ask(json!(prompts)), alone);
    let ids = prompts.map(|prompt| tokenizer.encode(prompt).unwrap());
    assert_eq!(ask(json!(ids)), alone);
    assert_eq!(ask(json!(ids[1])), alone[1..2]);
}

#[test]
fn a_stop_string_ends_the_text_before_it_and_shows_in_no_event() {
    let server = Server::start(&[]);
    let fields = json!({"seed": 3, "temperature": 1, "max_tokens": 60, "ignore_eos": true});
    let free = texts(&server.post(CHAT, &chat("where?", fields.clone()))).remove(0);
    let letters: Vec<char> = free.chars().collect();
    let stop: String = letters[letters.len() / 2..][..3].iter().collect();
    let cut = &free[..free.find(&stop).unwrap()];
    let mut body = chat("where?", fields);
    body["stop"] = json!(["never to be seen", stop]);
    let answer = server.post(CHAT, &body);
    assert_eq!(whole(&answer), [(cut.to_owned(), json!("stop"))]);
    assert_eq!(answer.json()["choices"][0]["stop_reason"], json!(stop));
    body["stream"] = json!(true);
    assert_eq!(gathered(&server.post(CHAT, &body), 1), [(cut.to_owned(), json!("stop"))]);
}

#[test]
fn a_stop_id_ends_the_text_before_it() {
    let server = Server::start(&[]);
    let tokenizer = Tokenizer::from_dir(&server.model_dir()).unwrap();
    let all: Vec<usize> = (0..tokenizer.len()).collect();
    let fields = json!({"temperature": 0, "ignore_eos": true, "stop_token_ids": all});
    let answer = server.post(COMPLETIONS, &completion("a lamp", fields));
    assert_eq!(whole(&answer), [(String::new(), json!("stop"))]);
    assert_eq!(answer.json()["usage"]["completion_tokens"], 1);
    assert!(answer.json()["choices"][0]["stop_reason"].is_u64(), "{answer:?}");
}

#[test]
fn log_probabilities_come_with_every_token_and_its_bytes() {
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
        // Greedy decoding takes the likeliest.
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
fn log_probabilities_of_a_completion_know_where_their_tokens_are() {
    let server = Server::start(&[]);
    let fields = json!({"seed": 5, "max_tokens": 30, "ignore_eos": true, "logprobs": 2,
        "skip_special_tokens": false});
    let body = completion("a lamp", fields);
    let answer = server.post(COMPLETIONS, &body).json();
    let (text, told) = (&answer["choices"][0]["text"], &answer["choices"][0]["logprobs"]);
    let text: Vec<char> = text.as_str().unwrap().chars().collect();
    let list = |field: &str| told[field].as_array().unwrap().clone();
    let whole: Vec<(Value, Value)> = list("tokens").into_iter().zip(list("text_offset")).collect();
    assert_eq!(whole.len(), 30);
    for (token, offset) in &whole {
        let (token, offset) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
        if !token.contains('\u{fffd}') {
            let there: String = text[offset..].iter().take(token.chars().count()).collect();
            assert_eq!(there, token);
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
fn bias_and_allowed_ids_reach_the_engine() {
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
fn a_stop_id_is_not_drawn_before_the_least_number_of_tokens() {
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
    let plain =
        texts(&server.post(COMPLETIONS, &completion(json!(["a lamp", "b"]), fields.clone())));
    let mut body = completion(json!(["a lamp", "b"]), fields);
    body["echo"] = json!(true);
    let expected: Vec<String> = ["a lamp", "a lamp", "b", "b"]
        .iter()
        .zip(plain)
        .map(|(p, text)| format!("{p}{text}"))
        .collect();
    assert_eq!(texts(&server.post(COMPLETIONS, &body)), expected);
    body["stream"] = json!(true);
    let streamed = gathered(&server.post(COMPLETIONS, &body), 4);
    assert_eq!(streamed.into_iter().map(|(text, _)| text).collect::<Vec<_>>(), expected);
}

#[test]
fn parts_of_text_are_lines_of_one_message() {
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

#[test]
fn what_cannot_be_done_is_refused_with_its_field() {
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
        (json!({"tempreature": 1}), "tempreature", "unsupported_parameter"),
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
    let broken = server.open("POST", CHAT, "{\"model\": ").whole();
    refused(&broken, 400, Value::Null, "invalid_json");
    assert!(server.figure("requests_total{outcome=\"refused\"}") >= 14.0);
}

#[test]
fn images_are_refused_in_clear_words() {
    let server = Server::start(&[]);
    let mut body = chat("", json!({}));
    body["messages"][0]["content"] =
        json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]);
    let answer = server.post(CHAT, &body);
    assert_eq!(answer.status, 400);
    let told = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(told.contains("image_url") && told.contains("text only"), "{told}");
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let server = Server::start(&[]);
    let answer = server.post(CHAT, &chat(&"a".repeat(17 << 20), json!({})));
    refused(&answer, 413, Value::Null, "request_too_large");
}

#[test]
fn who_does_not_show_the_key_gets_nothing() {
    let server = Server::start_with(&[], Some("sk-right"));
    assert_eq!(server.get("/v1/models").status, 200);
    let wrong = server.shown("sk-wrong");
    refused(&wrong.get("/v1/models"), 401, Value::Null, "invalid_api_key");
    refused(&wrong.post(CHAT, &chat("a", json!({}))), 401, Value::Null, "invalid_api_key");
    assert_eq!(wrong.get("/health").status, 200);
}

#[test]
fn a_server_that_everyone_reaches_without_a_key_says_so() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let mut command = client::command(dir.path());
    command.args(["--host", "0.0.0.0", "--max-model-len", "9000"]);
    let output = command.env_remove("EMBODIED_R_API_KEY").stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("EMBODIED_R_API_KEY"), "{told}");
    assert!(told.contains("`--max-model-len` is 9000") && told.contains("8192"), "{told}");
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
fn a_full_queue_sends_clients_away_until_there_is_room() {
    let server = Server::start(&["--max-num-seqs", "1", "--max-queue", "0"]);
    let mut running = server.open("POST", COMPLETIONS, &long(json!({})).to_string());
    running.first_event();
    let small = completion("a lamp", json!({"max_tokens": 2}));
    let answer = server.post(COMPLETIONS, &small);
    refused(&answer, 429, Value::Null, "queue_full");
    assert!(answer.headers.contains("retry-after: 1"), "{answer:?}");
    assert_eq!(server.figure("requests_total{outcome=\"overloaded\"}"), 1.0);
    drop(running);
    server.wait_for("sequences_running", 0.0);
    assert_eq!(server.post(COMPLETIONS, &small).status, 200);
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    let server = Server::start(&[]);
    let mut stream = server.open("POST", COMPLETIONS, &long(json!({"n": 4})).to_string());
    stream.first_event();
    let mut silent = long(json!({"n": 4}));
    silent["stream"] = json!(false);
    let whole = server.open("POST", COMPLETIONS, &silent.to_string());
    server.wait_for("sequences_running", 8.0);
    drop((stream, whole));
    server.wait_for("requests_total{outcome=\"cancelled\"}", 2.0);
    server.wait_for("sequences_running", 0.0);
    assert_eq!(server.figure("requests_total{outcome=\"completed\"}"), 0.0);
    let drawn = server.figure("generated_tokens_total");
    assert!(drawn < 8.0 * 8000.0, "{drawn} tokens were drawn for nobody");
}

#[test]
fn a_server_that_is_told_to_end_finishes_what_it_has_and_takes_nothing_new() {
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
fn a_server_whose_time_is_over_ends_what_still_runs() {
    let server = Server::start(&["--drain-timeout", "0"]);
    let mut running = server.open("POST", COMPLETIONS, &long(json!({"n": 8})).to_string());
    running.first_event();
    server.terminate();
    let rest = running.rest();
    assert!(rest.contains("\"code\":\"stopping\"") && rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_model_that_cannot_be_found_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = client::command(dir.path()).assert().code(1).get_output().clone();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("`model`"), "{told}");
}
