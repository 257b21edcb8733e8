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
        let mut settings = Settings::take(&mut fields, model)?;
        settings.max_tokens = settings.max_tokens.or(Some(MAX_TOKENS));
        settings.sampling.logprobs = Settings::top_logprobs(&mut fields, "logprobs")?;
        let echo = match fields.boolean("echo")? {
            Some(true) => Echo::On,
            _ => Echo::Off,
        };
        if echo == Echo::On && settings.sampling.logprobs.is_some() {
            let message = "`echo` with `logprobs` is not supported, omit one of them";
            return Err(Refusal::about("echo", message));
        }
        let special_tokens = match fields.boolean("add_special_tokens")? {
            Some(false) => AddSpecialTokens::No,
            _ => AddSpecialTokens::Yes,
        };
        let best_of = fields.count("best_of", 1)?;
        if best_of.is_some_and(|best_of| best_of != settings.n) {
            let message = "`best_of` is not supported, omit it or set it to the value of `n`";
            return Err(Refusal::about("best_of", message));
        }
        let prompts = prompts(&mut fields, model.vocabulary)?;
        fields.end()?;
        settings.check()?;
        Ok(Self { prompts, special_tokens, echo, settings })
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
