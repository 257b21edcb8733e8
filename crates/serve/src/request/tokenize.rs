//! Bodies of `POST /tokenize` and `POST /detokenize`, which vLLM defines.

use super::chat::Conversation;
use super::completion::AddSpecialTokens;
use super::fields::Fields;
use super::settings::{Model, check_model};
use crate::refusal::Refusal;

/// A request for the tokens of a text or a conversation.
#[derive(Debug)]
pub(crate) struct TokenizeRequest {
    pub(crate) input: TokenizeInput,
    /// Whether the tokens' texts are returned too.
    pub(crate) token_strs: bool,
}

/// What to tokenize.
#[derive(Debug)]
pub(crate) enum TokenizeInput {
    /// A text, whose special tokens are recognized, as in a completion's prompt.
    Text(String, AddSpecialTokens),
    /// A conversation, rendered by the chat template.
    Chat(Conversation),
}

impl TokenizeRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The first invalid or unsupported field.
    pub(crate) fn parse(body: &[u8], model: &Model) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        check_model(&mut fields, model)?;
        let token_strs = fields.boolean("return_token_strs")?.unwrap_or(false);
        let input = match fields.string("prompt")? {
            Some(text) => {
                let special = match fields.boolean("add_special_tokens")? {
                    Some(false) => AddSpecialTokens::No,
                    _ => AddSpecialTokens::Yes,
                };
                TokenizeInput::Text(text, special)
            }
            None if fields.get("messages").is_none() => return Err(Refusal::missing("prompt")),
            None => TokenizeInput::Chat(Conversation::take(&mut fields, model.media.is_some())?),
        };
        fields.end()?;
        Ok(Self { input, token_strs })
    }
}

/// The token ids of a `POST /detokenize`.
///
/// # Errors
/// The first invalid or unsupported field.
pub(crate) fn tokens(body: &[u8], model: &Model) -> Result<Vec<u32>, Refusal> {
    let mut fields = Fields::parse(body)?;
    check_model(&mut fields, model)?;
    let tokens = fields.sequence("tokens", model.vocabulary)?;
    fields.end()?;
    tokens.ok_or_else(|| Refusal::missing("tokens"))
}
