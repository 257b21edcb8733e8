//! A model behind an OpenAI-compatible API.

use embodied_r_openai::{
    ChatCompletion, ChatCompletionRequest, Client, ClientOptions, ContentPart,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

use super::ChatModel;
use crate::captioner::{FrameImage, ImageForm};
use crate::error::Result;

/// A model served by one or several servers.
#[derive(Debug)]
pub struct RemoteModel {
    client: Client,
}

impl RemoteModel {
    /// A client of the servers; nothing is sent yet.
    ///
    /// # Errors
    /// A base URL is missing or is not one.
    pub fn new(options: &ClientOptions) -> Result<Self> {
        Ok(Self { client: Client::new(options)? })
    }
}

impl ChatModel for RemoteModel {
    fn settings(&self) -> Map<String, Value> {
        Map::from_iter([("backend".to_owned(), json!("openai"))])
    }

    fn image_form(&self) -> ImageForm {
        ImageForm::Jpeg
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatCompletionRequest,
        images: &'a [FrameImage],
    ) -> BoxFuture<'a, Result<ChatCompletion>> {
        async move { Ok(self.client.chat(&with_images(request, images)?).await?) }.boxed()
    }
}

/// The request with images in place of their identifiers.
fn with_images(
    request: &ChatCompletionRequest,
    images: &[FrameImage],
) -> Result<ChatCompletionRequest> {
    let mut images = images.iter();
    let mut request = request.clone();
    for content in request.messages.iter_mut().flat_map(|message| &mut message.content) {
        if let ContentPart::Image(_) = content
            && let Some(image) = images.next()
        {
            *content = ContentPart::jpeg(image.jpeg()?);
        }
    }
    Ok(request)
}
