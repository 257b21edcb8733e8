//! Bodies of `POST /v1/completions`.

use serde_json::Value;

use super::fields::{Fields, token_ids};
use super::settings::{Model, Settings};
use crate::refusal::Refusal;

/// The default of `max_tokens`, as with OpenAI.
const MAX_TOKENS: usize = 16;

/// A completion request.
#[derive(Debug)]
pub(crate) struct CompletionRequest {
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) special_tokens: AddSpecialTokens,
    pub(crate) echo: Echo,
    /// Separates the prompts' prefix cache from that of other requests.
    pub(crate) cache_salt: Option<String>,
    pub(crate) settings: Settings,
}

/// A text, or its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// Whether the tokenizer adds special tokens such as BOS (`add_special_tokens`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddSpecialTokens {
    Yes,
    No,
}

/// Whether the prompt is prepended to its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    On,
    Off,
}

impl CompletionRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The first invalid or unsupported field.
    pub(crate) fn parse(body: &[u8], model: &Model) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        let echo = match fields.boolean("echo")? {
            Some(true) => Echo::On,
            _ => Echo::Off,
        };
        // The prompt alone is a response too.
        let nothing = fields.get("max_tokens").is_some_and(|value| value.as_u64() == Some(0));
        if echo == Echo::On && nothing {
            let _ = fields.take("max_tokens");
        }
        let mut settings = Settings::take(&mut fields, model)?;
        settings.max_tokens = match (echo, nothing) {
            (Echo::On, true) => Some(0),
            _ => settings.max_tokens.or(Some(MAX_TOKENS)),
        };
        settings.sampling.logprobs = Settings::top_logprobs(&mut fields, "logprobs")?;
        if echo == Echo::On {
            settings.sampling.prompt_logprobs = settings.sampling.logprobs;
        }
        let special_tokens = match fields.boolean("add_special_tokens")? {
            Some(false) => AddSpecialTokens::No,
            _ => AddSpecialTokens::Yes,
        };
        let cache_salt = fields.string("cache_salt")?;
        let prompts = prompts(&mut fields, model.vocabulary)?;
        fields.end()?;
        settings.check()?;
        Ok(Self { prompts, special_tokens, echo, cache_salt, settings })
    }
}

/// A string, a list of ids, or a list of either.
fn prompts(fields: &mut Fields, vocabulary: usize) -> Result<Vec<Prompt>, Refusal> {
    let value = fields.take("prompt").ok_or_else(|| Refusal::missing("prompt"))?;
    let one = |value: &Value| match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        other => token_ids(other, vocabulary).filter(|ids| !ids.is_empty()).map(Prompt::Ids),
    };
    let prompts = match (one(&value), &value) {
        (Some(prompt), _) => Some(vec![prompt]),
        (None, Value::Array(list)) if !list.is_empty() => list.iter().map(one).collect(),
        _ => None,
    };
    prompts.ok_or_else(|| {
        let want = format!(
            "a string, a list of strings, a list of token ids below {vocabulary} or a list of such \
             lists"
        );
        Refusal::field("prompt", &value, &want)
    })
}
