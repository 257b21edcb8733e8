//! A chat server whose response depends on a word of the question, and that records its requests.

use std::sync::{Arc, Mutex};

use embodied_r_test_server::{Request, Response};
use serde_json::Value;

pub(crate) struct Server {
    api: embodied_r_test_server::Server,
    refused_word: Arc<Mutex<Option<String>>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let refused_word = Arc::<Mutex<Option<String>>>::default();
        let (word, earlier) = (Arc::clone(&refused_word), Mutex::default());
        let reply = move |request: &Request| reply(request, &word.lock().unwrap(), &earlier);
        Self { api: embodied_r_test_server::Server::chat(reply), refused_word }
    }

    pub(crate) fn base_url(&self) -> String {
        self.api.base_url()
    }

    /// Refuses requests that contain `word`; `None` refuses none.
    pub(crate) fn refuse(&self, word: Option<&str>) {
        *self.refused_word.lock().unwrap() = word.map(str::to_owned);
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.api.bodies()
    }
}

/// `easy`: always B. `even`: alternately B and A. `odd`: no option. Otherwise A.
fn reply(request: &Request, refused: &Option<String>, earlier: &Mutex<Vec<Value>>) -> Response {
    let messages = request.json()["messages"].take();
    let question = messages[1]["content"].as_str().unwrap().to_owned();
    let mut earlier = earlier.lock().unwrap();
    let before = earlier.iter().filter(|it| **it == messages).count();
    earlier.push(messages);
    if refused.as_ref().is_some_and(|word| question.contains(word.as_str())) {
        return Response::new(400, "{\"error\": \"not this\"}");
    }
    Response::completion(match () {
        () if question.contains("easy") => "<answer>B</answer>",
        () if question.contains("even") && before % 2 == 0 => "B.",
        () if question.contains("odd") => "I do not know",
        () => "<think>B?</think><answer>A</answer>",
    })
}
