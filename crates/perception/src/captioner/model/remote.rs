//! A model behind an OpenAI-compatible API.

use embodied_r_openai::{ChatReply, ChatRequest, Client, ClientOptions, Content};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

use super::ChatModel;
use crate::error::Result;

/// Servers of a model.
#[derive(Debug)]
pub struct Remote {
    client: Client,
}

impl Remote {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// A base URL is missing or is not one.
    pub fn new(options: &ClientOptions) -> Result<Self> {
        Ok(Self { client: Client::new(options)? })
    }
}

impl ChatModel for Remote {
    fn settings(&self) -> Map<String, Value> {
        Map::from_iter([("backend".to_owned(), json!("openai"))])
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        jpegs: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Result<ChatReply>> {
        async move { Ok(self.client.chat(&with_pictures(request, jpegs)).await?) }.boxed()
    }
}

/// The request with pictures in place of their names.
fn with_pictures(request: &ChatRequest, jpegs: &[Vec<u8>]) -> ChatRequest {
    let mut jpegs = jpegs.iter();
    let mut request = request.clone();
    for content in request.messages.iter_mut().flat_map(|message| &mut message.content) {
        if let Content::Image(_) = content
            && let Some(jpeg) = jpegs.next()
        {
            *content = Content::jpeg(jpeg);
        }
    }
    request
}
