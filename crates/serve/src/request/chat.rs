//! Bodies of `POST /v1/chat/completions`.

use embodied_r_policy::tokenizer::{ChatTemplateKwargs, GenerationPrompt, KwargsFault};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::message::{self, MediaUrl, Message};
use super::settings::{Model, Settings};
use crate::refusal::Refusal;

/// A chat completion request.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) conversation: Conversation,
    pub(crate) settings: Settings,
}

/// A conversation for the chat template.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The messages, as objects with `role` and `content`: a text, or a list of parts if there are images or
    /// videos.
    pub(crate) messages: Vec<Value>,
    /// The images and videos, in the order of their placeholders.
    pub(crate) media: Vec<MediaUrl>,
    pub(crate) generation: GenerationPrompt,
    /// Further variables of the template.
    pub(crate) variables: Map<String, Value>,
    /// Separates the prompt's prefix cache from that of other requests.
    pub(crate) cache_salt: Option<String>,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The first invalid or unsupported field.
    pub(crate) fn parse(body: &[u8], model: &Model) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        let mut settings = Settings::take(&mut fields, model)?;
        settings.max_tokens = max_tokens(&mut fields, settings.max_tokens)?;
        settings.sampling.logprobs = logprobs(&mut fields)?;
        let conversation = Conversation::take(&mut fields, model.media.is_some())?;
        fields.end()?;
        settings.check()?;
        Ok(Self { conversation, settings })
    }
}

impl Conversation {
    /// Takes the fields of a conversation; it may contain images and videos if the model is a vision-language model.
    pub(super) fn take(fields: &mut Fields, is_vision_model: bool) -> Result<Self, Refusal> {
        let generation = match fields.boolean("add_generation_prompt")? {
            Some(false) => GenerationPrompt::None,
            _ => GenerationPrompt::Append,
        };
        let variables = fields.object("chat_template_kwargs")?.unwrap_or_default();
        let kwargs = ChatTemplateKwargs::new(variables).map_err(|fault| match fault {
            KwargsFault::Reserved { name } => {
                Refusal::unsupported(&format!("chat_template_kwargs.{name}"))
            }
            fault => Refusal::about("chat_template_kwargs", fault.to_string()),
        })?;
        let mut variables = kwargs.variables().clone();
        // Without effect unless the template knows it.
        if let Some(effort) = fields.string("reasoning_effort")? {
            variables.entry("reasoning_effort").or_insert(effort.into());
        }
        let cache_salt = fields.string("cache_salt")?;
        let messages = message::messages(fields, is_vision_model)?;
        Ok(Self { generation, variables, cache_salt, ..Self::of(messages) })
    }

    /// A conversation of these messages, to be completed.
    pub(super) fn of(messages: Vec<Message>) -> Self {
        let mut media = Vec::new();
        let form = message::Form::of(&messages);
        let messages =
            messages.into_iter().map(|message| message.rendered(form, &mut media)).collect();
        Self {
            messages,
            media,
            generation: GenerationPrompt::Append,
            variables: Map::new(),
            cache_salt: None,
        }
    }
}

/// The newer name of `max_tokens`.
fn max_tokens(fields: &mut Fields, older: Option<usize>) -> Result<Option<usize>, Refusal> {
    let newer = fields.count("max_completion_tokens", 1)?;
    match (older, newer) {
        (Some(older), Some(newer)) if older != newer => {
            let message = format!(
                "`max_completion_tokens` is {newer} and `max_tokens` {older}; omit one of them"
            );
            Err(Refusal::about("max_completion_tokens", message))
        }
        _ => Ok(newer.or(older)),
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let enabled = fields.boolean("logprobs")?.unwrap_or(false);
    let top = Settings::top_logprobs(fields, "top_logprobs")?;
    match (enabled, top) {
        (false, Some(1..)) => {
            Err(Refusal::about("top_logprobs", "`top_logprobs` needs `logprobs` to be true"))
        }
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0))),
    }
}
