//! The memory of requests that are refused, and of many that are not.

use std::io::Cursor;
use std::ops::Range;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use embodied_r_tests::{VisionModel, tiny_model};
use image::{GrayImage, ImageFormat, Luma};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Server, chat, command, completion};
use super::load::in_parallel;
use super::{CHAT, COMPLETIONS, refused};

const MB: u64 = 1 << 20;

/// A square PNG of one color as a `data:` URL.
fn png(side: u32, color: u8) -> String {
    let mut bytes = Cursor::new(Vec::new());
    let image = GrayImage::from_pixel(side, side, Luma([color]));
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes.into_inner()))
}

/// A question about these images.
fn about(urls: &[String]) -> Value {
    let images = urls.iter().map(|url| json!({"type": "image_url", "image_url": {"url": url}}));
    let content: Vec<Value> = images.chain([json!({"type": "text", "text": "what?"})]).collect();
    json!({"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": content}]})
}

/// A server of the vision-language model that returns freed memory at once.
fn vision_server(arguments: &[&str]) -> Server {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    purging_server(dir, arguments)
}

/// A server that returns freed memory at once: how much the allocator keeps for a second differs from run to run.
fn purging_server(dir: TempDir, arguments: &[&str]) -> Server {
    let mut command = command(dir.path());
    command.args(arguments).env("MIMALLOC_PURGE_DELAY", "0");
    Server::spawn(command, None).keeping(dir)
}

#[test]
fn images_beyond_the_limits_are_refused_before_they_are_decoded() {
    let request = about(&vec![png(8192, 7); 20]);
    for (arguments, code) in [
        (vec!["--max-model-len", "100"], "context_length_exceeded"),
        (vec![], "image_too_large"),
        (vec!["--max-prompt-pixels", "70000000"], "image_too_large"),
    ] {
        let server = vision_server(&arguments);
        let before = server.memory();
        let answer = server.post(CHAT, &request);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(code)));
        // One decoded image has 201 MB.
        let (after, before) = (server.memory().peak, before.peak);
        assert!(after < before + 100 * MB, "{before} bytes have become {after}");
    }
}

#[test]
fn images_of_several_requests_are_decoded_one_after_the_other() {
    let server = vision_server(&[]);
    let before = server.memory().peak;
    // Decoded, an image has 268 MB with its RGB copy.
    let requests: Vec<Value> = (0..4).map(|i| about(&[png(8192, i), png(8192, 100 + i)])).collect();
    in_parallel(4, &requests, |request| {
        let answer = server.post(CHAT, request);
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    let after = server.memory().peak;
    assert!(after < before + 450 * MB, "{before} bytes have become {after}");
}

#[test]
fn images_of_clients_that_disconnect_are_decoded_one_after_the_other() {
    let server = vision_server(&[]);
    let before = server.memory().peak;
    for color in 0..16 {
        let connection = server.open("POST", CHAT, &about(&[png(8192, color)]).to_string());
        // Long enough to begin, and not long enough to decode.
        std::thread::sleep(Duration::from_millis(200));
        drop(connection);
    }
    // The pixels of all that were begun are returned.
    assert_eq!(server.post(CHAT, &about(&[png(8192, 100)])).status, 200);
    let after = server.memory().peak;
    assert!(after < before + 450 * MB, "{before} bytes have become {after}");
}

#[test]
fn a_prompt_beyond_the_context_is_refused_in_bounded_memory() {
    let server = Server::start(&["--max-model-len", "2048"]);
    let before = server.memory().peak;
    let words = "the lamp is left of the chair ".repeat(500_000);
    let word = "l".repeat(15_000_000);
    for text in [&words, &word] {
        for (path, body) in
            [(CHAT, chat(text, json!({}))), (COMPLETIONS, completion(text.as_str(), json!({})))]
        {
            let answer = server.post(path, &body);
            let error = answer.json()["error"].clone();
            assert_eq!((answer.status, &error["code"]), (400, &json!("context_length_exceeded")));
            assert!(error["message"].as_str().unwrap().contains("tokens or more"), "{error}");
        }
    }
    // Encoded as a whole, each takes more than 2 GB.
    let after = server.memory().peak;
    assert!(after < before + 400 * MB, "{before} bytes have become {after}");
}

#[test]
fn a_body_of_many_small_values_is_refused_before_it_is_parsed() {
    let server = Server::start(&[]);
    let before = server.memory().peak;
    let list = |value: &str| vec![value; 15_000_000 / (value.len() + 1)].join(",");
    let fields: Vec<String> = (0..1_000_000).map(|name| format!("\"{name}\":0")).collect();
    for (path, body, kind) in [
        (CHAT, format!("{{\"messages\":[{}]}}", list("{\"a\":0}")), "arrays, objects and fields"),
        (CHAT, format!("{{\"messages\":[{}]}}", list("[]")), "arrays, objects and fields"),
        (CHAT, format!("{{{}}}", fields.join(",")), "arrays, objects and fields"),
        (COMPLETIONS, format!("{{\"prompt\":[{}]}}", list("1")), "elements"),
    ] {
        let answer = server.open("POST", path, &body).response();
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["code"]), (413, &json!("request_too_large")), "{error}");
        assert!(error["message"].as_str().unwrap().contains(kind), "{error}");
    }
    // Parsed, the fields take more than 200 MB, and each other one 600 MB or more.
    let after = server.memory().peak;
    assert!(after < before + 200 * MB, "{before} bytes have become {after}");
}

#[test]
fn a_response_with_too_many_log_probabilities_is_refused() {
    let server = Server::start(&["--request-memory-gb", "0.14"]);
    let fields = json!({"n": 8, "max_tokens": 1000, "logprobs": 20, "ignore_eos": true, "seed": 1});
    let mut body = completion("a lamp", fields);
    let answer = server.post(COMPLETIONS, &body);
    // It is not to be retried, since no other request had any.
    refused(&answer, 413, Value::Null, "request_too_large");
    body["n"] = json!(4);
    assert_eq!(server.post(COMPLETIONS, &body).status, 200);
}

#[test]
fn the_log_probabilities_of_echoed_prompts_are_in_the_memory_of_requests() {
    let server = Server::start(&["--request-memory-gb", "0.14"]);
    for stream in [false, true] {
        let fields =
            json!({"n": 4, "max_tokens": 1, "logprobs": 20, "echo": true, "stream": stream});
        let mut body = completion(vec![7; 2000], fields);
        let answer = server.post(COMPLETIONS, &body);
        refused(&answer, 413, Value::Null, "request_too_large");
        body["n"] = json!(2);
        assert_eq!(server.post(COMPLETIONS, &body).status, 200);
    }
}

#[test]
fn the_memory_of_large_requests_is_returned_to_the_system() {
    let server = Server::start(&["--max-model-len", "2048"]);
    let before = server.memory().resident;
    let body = chat(&"l".repeat(15_000_000), json!({}));
    in_parallel(4, &[(); 4], |()| assert_eq!(server.post(CHAT, &body).status, 400));
    let began = Instant::now();
    loop {
        let now = server.memory();
        if now.resident < before + 100 * MB {
            assert!(now.peak > before + 100 * MB, "nothing had to be returned: {now:?}");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{before} bytes have become {now:?}");
        assert_eq!(server.get("/health").status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn resident_memory_levels_off_over_6000_requests() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    // The KV cache grows up to its limit, which is reached soon.
    let server = purging_server(dir, &["--kv-cache-gb", "0.004"]);
    // The least of several measurements: free memory that the allocator keeps comes and goes in lumps of 10 MB and more.
    let requests = |range: Range<usize>| {
        let batches = range.step_by(200).map(|first| {
            let numbers: Vec<usize> = (first..first + 200).collect();
            in_parallel(8, &numbers, |number| {
                let prompt = format!("{number} {}", "lamp ".repeat(number % 200));
                let stream = number % 2 == 0;
                let fields = json!({"max_tokens": 1 + number % 7, "stream": stream, "seed": 1});
                let answer = server.post(CHAT, &chat(&prompt, fields));
                assert_eq!(answer.status, 200, "{answer:?}");
            });
            server.memory().resident
        });
        batches.min().unwrap()
    };
    requests(0..800);
    let first = requests(800..2000);
    requests(2000..4800);
    let last = requests(4800..6000);
    assert!(last < first + 24 * MB, "{first} bytes in 2,000 requests, {last} in 6,000");
}
