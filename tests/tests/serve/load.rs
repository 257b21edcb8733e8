//! Many requests at a time: none is lost, and each has the response that it has alone.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::client::{Server, chat, completion};
use super::{CHAT, COMPLETIONS, choices, streamed_choices};

/// Calls `work` with all items, from `threads` threads, and returns the results in the order of the items.
pub(super) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let (next, results) = (Mutex::new(0..items.len()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(index) = next.lock().unwrap().next() else { return };
                    let result = work(&items[index]);
                    results.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The path and the body of a request; every other is streamed.
fn request(index: usize) -> (&'static str, Value) {
    let stream = index % 2 == 1;
    let text = format!("{index}: a lamp is {}the chair", "left of ".repeat(index * 7 % 40));
    let fields = json!({
        "max_tokens": 1 + index * 5 % 24, "seed": index, "temperature": 0.5 * (index % 3) as f64,
        "n": 1 + index % 5 / 4, "stream": stream, "ignore_eos": index.is_multiple_of(4),
    });
    match index % 3 {
        0 => (COMPLETIONS, completion(text, fields)),
        _ => (CHAT, chat(&text, fields)),
    }
}

/// The texts and finish reasons of a response, streamed or not.
fn answer(server: &Server, (path, body): &(&'static str, Value)) -> Vec<(String, Value)> {
    let response = server.post(path, body);
    assert_eq!(response.status, 200, "{response:?}");
    match body["stream"] == true {
        true => streamed_choices(&response, body["n"].as_u64().unwrap() as usize),
        false => choices(&response),
    }
}

#[test]
fn requests_of_32_clients_have_the_responses_of_each_request_alone() {
    let server = Server::start(&["--max-num-seqs", "48"]);
    let requests: Vec<_> = (0..200).map(request).collect();
    let together = in_parallel(32, &requests, |request| answer(&server, request));
    assert_eq!(server.metric("requests_total{outcome=\"completed\"}"), 200.0);
    let alone: Vec<_> = requests.iter().map(|request| answer(&server, request)).collect();
    for (index, (together, alone)) in together.iter().zip(&alone).enumerate() {
        assert_eq!(together, alone, "request {index}");
    }
}
