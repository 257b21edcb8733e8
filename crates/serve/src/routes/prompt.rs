//! The prompts of requests.

use std::sync::Arc;

use embodied_r_policy::tokenizer::{BoundedIds, SpecialTokens, Tokenizer};
use embodied_r_vision::Error as VisionError;

use crate::app::{App, Shared};
use crate::body::RequestBytes;
use crate::budget::Reserved;
use crate::images::{MediaFiles, MediaLimits};
use crate::media::RequestMemory;
use crate::refusal::Refusal;
use crate::request::Settings;
use crate::request::chat::Conversation;
use crate::request::completion::{AddSpecialTokens, Prompt};

/// The prompt of a conversation from the field `param`, with room for the completion that `settings` ask for.
pub(super) async fn chat_prompt(
    app: &Shared,
    param: &'static str,
    mut conversation: Conversation,
    settings: Option<&Settings>,
    memory: RequestBytes,
) -> Result<embodied_r_policy::Prompt, Refusal> {
    let cache_salt = conversation.cache_salt.take();
    let prompt = match conversation.media.is_empty() {
        true => {
            let (most, memory) = (app.model.max_model_len, Arc::new(memory.memory));
            let ids = chat_ids(app, param, conversation, Vec::new(), most, memory).await?;
            embodied_r_policy::Prompt::from(ids)
        }
        false => media_prompt(app, param, conversation, settings, memory).await?,
    };
    Ok(prompt.with_cache_salt(cache_salt.as_deref()))
}

/// The ids of a rendered conversation, whose videos have these `timestamps` and whose request has this `memory`, if there are
/// at most `most`.
pub(super) async fn chat_ids(
    app: &Shared,
    param: &str,
    conversation: Conversation,
    timestamps: Vec<Vec<String>>,
    most: usize,
    memory: Arc<Reserved>,
) -> Result<Vec<u32>, Refusal> {
    let cache = app.model.media.as_ref().map(|media| media.embedding_cache.clone());
    let ids = app.run_blocking(move |tokenizer| -> Result<_, VisionError> {
        let _memory = memory;
        let Conversation { messages, generation, variables, .. } = conversation;
        let mut chat = tokenizer.apply_chat_template_with(&messages, generation, &variables)?;
        drop(messages);
        if let Some(cache) = cache {
            let processor = cache.vision_encoder().vision_processor();
            chat = processor.with_timestamps(chat, timestamps.iter().map(Vec::as_slice))?;
        }
        Ok(tokenizer.encode_chat_at_most(&chat, most)?)
    });
    let ids = ids.await?.map_err(|error| vision_refusal(param, &error))?;
    within_context(app, param, Ok(ids))
}

/// The refusal of the field `param` for an error of placing images.
fn vision_refusal(param: &str, error: &VisionError) -> Refusal {
    match error {
        VisionError::Policy(error) => Refusal::from_policy(param, error),
        // The template may have no place for the images of a role.
        VisionError::ImageCount { .. } | VisionError::VideoCount { .. } => {
            Refusal::about(param, error.to_string())
        }
        _ => Refusal::failed(error),
    }
}

/// The ids of the field `param`, or why there are none.
pub(super) fn within_context(
    app: &App,
    param: &str,
    ids: embodied_r_policy::Result<BoundedIds>,
) -> Result<Vec<u32>, Refusal> {
    match ids.map_err(|error| Refusal::from_policy(param, &error))? {
        BoundedIds::Ids(ids) => Ok(ids),
        BoundedIds::TooMany { at_least } => {
            Err(Refusal::too_many_tokens(param, at_least, app.model.max_model_len))
        }
    }
}

/// The prompt of a conversation with images and videos, which are decoded only if they fit the context.
async fn media_prompt(
    app: &Shared,
    param: &'static str,
    mut conversation: Conversation,
    settings: Option<&Settings>,
    RequestBytes { size, mut memory }: RequestBytes,
) -> Result<embodied_r_policy::Prompt, Refusal> {
    let urls = std::mem::take(&mut conversation.media);
    // The parser accepts them only for vision-language models.
    let no_encoder = || Refusal::failed("there is no vision encoder");
    let media = app.model.media.as_ref().ok_or_else(no_encoder)?;
    let most = app.model.max_model_len;
    let limits = MediaLimits { max_model_len: most, max_pixels: app.limits.max_prompt_pixels };
    let (budget, bytes) = (&app.request_memory, size as u64);
    let reserved = RequestMemory { budget, reserved: &mut memory, bytes };
    let files = MediaFiles::load(media, param, urls, limits, reserved).await?;
    let memory = Arc::new(memory);
    // A placeholder stands for all of its tokens.
    let others = files.tokens.saturating_sub(files.placeholders());
    let (most, timestamps) = (most.saturating_sub(others), files.timestamps.clone());
    let ids = chat_ids(app, param, conversation, timestamps, most, memory.clone()).await?;
    if let Some(settings) = settings {
        settings.sampling_after(param, ids.len() + others, &app.model)?;
    }
    let embeddings = files.encode(media, &memory).await?;
    let prompt = media.embedding_cache.vision_encoder().expand_placeholders(&ids, &embeddings);
    prompt.map_err(|error| vision_refusal(param, &error))
}

/// The texts of prompts.
pub(super) fn texts(
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
) -> embodied_r_policy::Result<Vec<String>> {
    let text = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Ids(ids) => tokenizer.decode(ids, SpecialTokens::Keep),
    };
    prompts.iter().map(text).collect()
}

/// The ids of a prompt, if there are at most `most`.
pub(super) fn ids(
    tokenizer: &Tokenizer,
    prompt: Prompt,
    special_tokens: AddSpecialTokens,
    most: usize,
) -> embodied_r_policy::Result<BoundedIds> {
    match (prompt, special_tokens) {
        (Prompt::Ids(ids), _) => Ok(BoundedIds::Ids(ids)),
        (Prompt::Text(text), AddSpecialTokens::Yes) => {
            tokenizer.encode_with_special_tokens_at_most(&text, most)
        }
        (Prompt::Text(text), AddSpecialTokens::No) => tokenizer.encode_at_most(&text, most),
    }
}
