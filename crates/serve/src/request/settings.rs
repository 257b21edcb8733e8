//! The parameters common to chat and completion requests: sampling and response format.

use std::sync::Arc;

use embodied_r_policy::tokenizer::SpecialTokens;
use embodied_r_policy::{SamplingBounds, SamplingParams, SamplingSettings, tokenizer::Tokenizer};
use serde_json::Value;

use super::fields::Fields;
use crate::media::Media;
use crate::refusal::Refusal;

/// The maximum of `n`, as with OpenAI.
const MAX_COMPLETIONS: i64 = 128;
/// The maximum of `top_logprobs`.
const MAX_TOP_LOGPROBS: i64 = 20;
/// The maximum number of stop strings.
const MAX_STOPS: usize = 4;

/// The served model.
#[derive(Debug)]
pub(crate) struct Model {
    /// The model's name in requests.
    pub(crate) name: String,
    /// Where the model was loaded from.
    pub(crate) root: String,
    /// Identifies the weights and the settings that answers depend on.
    pub(crate) system_fingerprint: String,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) defaults: SamplingSettings,
    /// The vocabulary size, an exclusive bound on token ids.
    pub(crate) vocabulary: usize,
    /// The context length: maximum tokens of prompt and completion together.
    pub(crate) max_model_len: usize,
    /// The image loader of a vision-language model.
    pub(crate) media: Option<Media>,
}

/// How the response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseMode {
    Whole,
    Stream(Include),
}

/// The usage in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    /// In a last chunk.
    Usage,
    /// In a last chunk, and the usage so far in each.
    ContinuousUsage,
}

/// The parameters of a request besides its prompt.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The sampling parameters, except `max_new_tokens`, which depends on the prompt.
    pub(crate) sampling: SamplingParams,
    /// The requested stop ids; `sampling` also has the model's own.
    pub(crate) stop_token_ids: Vec<u32>,
    /// 0 only for an echoed prompt.
    pub(crate) max_tokens: Option<usize>,
    /// Completions per prompt.
    pub(crate) n: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) stop: Vec<String>,
    pub(crate) special: SpecialTokens,
    pub(crate) response_mode: ResponseMode,
}

impl Settings {
    /// Takes the fields. Names and ranges are OpenAI's, else vLLM's.
    pub(super) fn take(fields: &mut Fields, model: &Model) -> Result<Self, Refusal> {
        check_model(fields, model)?;
        let n = fields
            .integer("n", "an integer from 1 to 128", |n| (1..=MAX_COMPLETIONS).contains(&n))?;
        let n = n.map_or(1, |n| n as usize);
        if fields.count("best_of", 1)?.is_some_and(|best_of| best_of != n) {
            let message = "`best_of` is not supported, omit it or set it to the value of `n`";
            return Err(Refusal::about("best_of", message));
        }
        let stop_token_ids = fields.ids("stop_token_ids", model.vocabulary)?.unwrap_or_default();
        let own = match fields.boolean("ignore_eos")? {
            Some(true) => &[],
            _ => model.tokenizer.stop_ids(),
        };
        let mut sampling = sampling(fields, model)?;
        sampling.stop_ids = [own, &stop_token_ids].concat();
        let special = match fields.boolean("skip_special_tokens")? {
            Some(false) => SpecialTokens::Keep,
            _ => SpecialTokens::Skip,
        };
        // A seed only selects a random stream, so negative seeds are fine.
        let seed = fields.integer("seed", "an integer", |_| true)?.map(i64::cast_unsigned);
        Ok(Self {
            sampling,
            stop_token_ids,
            max_tokens: fields.count("max_tokens", 1)?,
            n,
            seed,
            stop: stop(fields)?,
            special,
            response_mode: response_mode(fields)?,
        })
    }

    /// The sampling parameters for a prompt of `prompt` tokens from the field `param`.
    ///
    /// # Errors
    /// The prompt and the requested completion exceed the context length.
    pub(crate) fn sampling_after(
        &self,
        param: &str,
        prompt: usize,
        model: &Model,
    ) -> Result<Arc<SamplingParams>, Refusal> {
        if prompt == 0 {
            return Err(Refusal::about(param, format!("`{param}` must have at least one token")));
        }
        let most = model.max_model_len;
        let new = self.max_tokens.unwrap_or(1).max(self.sampling.min_new_tokens).max(1);
        let room = most.saturating_sub(prompt);
        if new > room {
            return Err(Refusal::too_long(param, prompt, new, most));
        }
        // The engine samples at least one token; a choice without any leaves it out.
        let max_new_tokens = self.max_tokens.unwrap_or(room).max(1);
        Ok(Arc::new(SamplingParams { max_new_tokens, ..self.sampling.clone() }))
    }

    /// Checks fields that depend on each other.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match self.max_tokens {
            Some(most) if most < self.sampling.min_new_tokens => {
                let least = self.sampling.min_new_tokens;
                let message =
                    format!("`min_tokens` must be at most `max_tokens` = {most}, not {least}");
                Err(Refusal::about("min_tokens", message))
            }
            _ => Ok(()),
        }
    }

    /// Takes the number of top log-probabilities per token.
    pub(super) fn top_logprobs(fields: &mut Fields, field: &str) -> Result<Option<usize>, Refusal> {
        let allowed = |n| (0..=MAX_TOP_LOGPROBS).contains(&n);
        let n = fields.integer(field, "an integer from 0 to 20", allowed)?;
        Ok(n.map(|n| n as usize))
    }
}

/// Takes the model's name, which may be missing.
pub(super) fn check_model(fields: &mut Fields, model: &Model) -> Result<(), Refusal> {
    match fields.string("model")? {
        Some(requested) if requested != model.name => {
            Err(Refusal::unknown_model(&requested, &model.name))
        }
        _ => Ok(()),
    }
}

fn sampling(fields: &mut Fields, model: &Model) -> Result<SamplingParams, Refusal> {
    let of_top_k = SamplingSettings::TOP_K;
    let top_k = fields.integer(of_top_k.name, of_top_k.want, |k| of_top_k.contains(k as f64))?;
    let mut number = |bounds: SamplingBounds| {
        fields.number(bounds.name, bounds.want, |number| bounds.contains(number))
    };
    let requested = SamplingSettings {
        temperature: number(SamplingSettings::TEMPERATURE)?,
        top_p: number(SamplingSettings::TOP_P)?,
        top_k,
        min_p: number(SamplingSettings::MIN_P)?,
        repetition_penalty: number(SamplingSettings::REPETITION_PENALTY)?,
    };
    let penalty = |p: f64| (-2.0..=2.0).contains(&p);
    let of_penalty = "a number from -2 to 2";
    let params = SamplingParams {
        presence_penalty: fields
            .number("presence_penalty", of_penalty, penalty)?
            .unwrap_or_default(),
        frequency_penalty: fields
            .number("frequency_penalty", of_penalty, penalty)?
            .unwrap_or_default(),
        logit_bias: logit_bias(fields, model.vocabulary)?,
        allowed_token_ids: allowed(fields, model.vocabulary)?,
        min_new_tokens: fields.count("min_tokens", 0)?.unwrap_or_default(),
        ..SamplingParams::default()
    };
    Ok(requested.or(model.defaults).applied_to(params))
}

fn allowed(fields: &mut Fields, vocabulary: usize) -> Result<Option<Arc<[u32]>>, Refusal> {
    match fields.ids("allowed_token_ids", vocabulary)? {
        Some(ids) if ids.is_empty() => {
            let message = "`allowed_token_ids` must not be empty; omit it to allow all tokens";
            Err(Refusal::about("allowed_token_ids", message))
        }
        ids => Ok(ids.map(Arc::from)),
    }
}

/// `{"ID": BIAS}`, with biases from -100 to 100.
fn logit_bias(fields: &mut Fields, vocabulary: usize) -> Result<Vec<(u32, f32)>, Refusal> {
    let Some(value) = fields.take("logit_bias") else { return Ok(Vec::new()) };
    let entry = |(id, bias): (&String, &Value)| {
        let id: u32 = id.parse().ok().filter(|id| (*id as usize) < vocabulary)?;
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))?;
        Some((id, bias as f32))
    };
    let entries = value.as_object().map(|map| map.iter().map(entry).collect::<Option<Vec<_>>>());
    entries.flatten().ok_or_else(|| {
        let want =
            format!("an object of token ids below {vocabulary} and numbers from -100 to 100");
        Refusal::field("logit_bias", &value, &want)
    })
}

/// A string, or up to four.
fn stop(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let Some(value) = fields.take("stop") else { return Ok(Vec::new()) };
    let strings = match &value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(list) => list.iter().map(|stop| stop.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let good =
        |stops: &Vec<String>| stops.len() <= MAX_STOPS && stops.iter().all(|stop| !stop.is_empty());
    let want = "a string or a list of up to 4, none of them empty";
    strings.filter(good).ok_or_else(|| Refusal::field("stop", &value, want))
}

fn response_mode(fields: &mut Fields) -> Result<ResponseMode, Refusal> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(options) = fields.take("stream_options") else {
        return Ok(if stream {
            ResponseMode::Stream(Include::Nothing)
        } else {
            ResponseMode::Whole
        });
    };
    if !stream {
        return Err(Refusal::about("stream_options", "`stream_options` needs `stream` to be true"));
    }
    let mut options = Fields::within(options, "stream_options")?;
    let usage = options.boolean("include_usage")?.unwrap_or(false);
    let continuous = options.boolean("continuous_usage_stats")?.unwrap_or(false);
    options.end()?;
    Ok(ResponseMode::Stream(match (usage, continuous) {
        (false, _) => Include::Nothing,
        (true, false) => Include::Usage,
        (true, true) => Include::ContinuousUsage,
    }))
}
