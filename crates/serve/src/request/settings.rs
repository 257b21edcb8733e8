//! What chat and completion requests have in common: how tokens are drawn, and how they are told.

use std::sync::Arc;

use embodied_r_policy::tokenizer::Special;
use embodied_r_policy::{Sampling, SamplingDefaults, tokenizer::Tokenizer};
use serde_json::Value;

use super::fields::Fields;
use crate::media::Media;
use crate::refusal::Refusal;

/// Most completions of one prompt, as with OpenAI.
const MOST_COMPLETIONS: i64 = 128;
/// Most likely tokens that are told beside each drawn one.
const MOST_TOP_LOGPROBS: i64 = 20;
/// Most stop strings.
const MOST_STOPS: usize = 4;

/// The model as requests see it.
#[derive(Debug)]
pub(crate) struct Model {
    /// The name that clients ask for.
    pub(crate) name: String,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) defaults: SamplingDefaults,
    /// Rows of the embedding: ids are below.
    pub(crate) vocabulary: usize,
    /// Most tokens of a prompt and its completion together.
    pub(crate) max_model_len: usize,
    /// What looks at pictures, if the model can see.
    pub(crate) media: Option<Media>,
}

/// How the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Whole,
    Stream(Include),
}

/// What a stream ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Usage,
}

/// What is asked for beside the prompt.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// All but `max_new_tokens`, which depends on the prompt.
    pub(crate) sampling: Sampling,
    /// Stop ids that were asked for; the model's own are in `sampling` too.
    pub(crate) stop_token_ids: Vec<u32>,
    pub(crate) max_tokens: Option<usize>,
    /// Completions of each prompt.
    pub(crate) n: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) stop: Vec<String>,
    pub(crate) special: Special,
    pub(crate) reply: Reply,
}

impl Settings {
    /// Takes the fields. What they are called and may be is OpenAI's, then vLLM's.
    pub(super) fn take(fields: &mut Fields, model: &Model) -> Result<Self, Refusal> {
        match fields.string("model")? {
            Some(asked) if asked != model.name => {
                return Err(Refusal::unknown_model(&asked, &model.name));
            }
            _ => {}
        }
        let n = fields
            .integer("n", "an integer from 1 to 128", |n| (1..=MOST_COMPLETIONS).contains(&n))?;
        let stop_token_ids = fields.ids("stop_token_ids", model.vocabulary)?.unwrap_or_default();
        let own = match fields.boolean("ignore_eos")? {
            Some(true) => &[],
            _ => model.tokenizer.stop_ids(),
        };
        let mut sampling = sampling(fields, model)?;
        sampling.stop_ids = [own, &stop_token_ids].concat();
        let special = match fields.boolean("skip_special_tokens")? {
            Some(false) => Special::Keep,
            _ => Special::Skip,
        };
        // A seed only names a stream of random numbers; negative ones are as good.
        let seed = fields.integer("seed", "an integer", |_| true)?.map(i64::cast_unsigned);
        Ok(Self {
            sampling,
            stop_token_ids,
            max_tokens: fields.count("max_tokens", 1)?,
            n: n.map_or(1, |n| n as usize),
            seed,
            stop: stop(fields)?,
            special,
            reply: reply(fields)?,
        })
    }

    /// How tokens are drawn after a prompt of `prompt` tokens, which came in the field `param`.
    ///
    /// # Errors
    /// The prompt and what is asked for have no room in the model.
    pub(crate) fn sampling_after(
        &self,
        param: &str,
        prompt: usize,
        model: &Model,
    ) -> Result<Arc<Sampling>, Refusal> {
        if prompt == 0 {
            return Err(Refusal::about(param, format!("`{param}` has no tokens, want some text")));
        }
        let most = model.max_model_len;
        let wanted = self.max_tokens.unwrap_or(1).max(self.sampling.min_new_tokens);
        let room = most.saturating_sub(prompt);
        if wanted > room {
            return Err(Refusal::too_long(param, prompt, wanted, most));
        }
        let max_new_tokens = self.max_tokens.unwrap_or(room);
        Ok(Arc::new(Sampling { max_new_tokens, ..self.sampling.clone() }))
    }

    /// Checks fields that depend on each other.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match self.max_tokens {
            Some(most) if most < self.sampling.min_new_tokens => {
                let least = self.sampling.min_new_tokens;
                let told = format!("`min_tokens` is {least}, want at most `max_tokens`, {most}");
                Err(Refusal::about("min_tokens", told))
            }
            _ => Ok(()),
        }
    }

    /// Takes the number of likely tokens that are told beside each drawn one.
    pub(super) fn top_logprobs(fields: &mut Fields, field: &str) -> Result<Option<usize>, Refusal> {
        let allowed = |n| (0..=MOST_TOP_LOGPROBS).contains(&n);
        let n = fields.integer(field, "an integer from 0 to 20", allowed)?;
        Ok(n.map(|n| n as usize))
    }
}

fn sampling(fields: &mut Fields, model: &Model) -> Result<Sampling, Refusal> {
    let SamplingDefaults { temperature, top_p, top_k, min_p, repetition_penalty } = model.defaults;
    let finite = |t: f64| t.is_finite() && t >= 0.0;
    let share = |p: f64| p > 0.0 && p <= 1.0;
    let penalty = |p: f64| (-2.0..=2.0).contains(&p);
    let of_penalty = "a number from -2 to 2";
    Ok(Sampling {
        temperature: fields
            .number("temperature", "a number of 0 or more", finite)?
            .unwrap_or(temperature),
        top_p: fields.number("top_p", "a number above 0 and at most 1", share)?.unwrap_or(top_p),
        top_k: fields
            .integer("top_k", "an integer, 0 or -1 for all tokens", |k| k >= -1)?
            .map_or(top_k, |k| usize::try_from(k).unwrap_or(0)),
        min_p: fields
            .number("min_p", "a number from 0 to 1", |p| (0.0..=1.0).contains(&p))?
            .unwrap_or(min_p),
        repetition_penalty: fields
            .number("repetition_penalty", "a number above 0", |p| p.is_finite() && p > 0.0)?
            .unwrap_or(repetition_penalty),
        presence_penalty: fields
            .number("presence_penalty", of_penalty, penalty)?
            .unwrap_or_default(),
        frequency_penalty: fields
            .number("frequency_penalty", of_penalty, penalty)?
            .unwrap_or_default(),
        logit_bias: logit_bias(fields, model.vocabulary)?,
        allowed_token_ids: allowed(fields, model.vocabulary)?,
        min_new_tokens: fields.count("min_tokens", 0)?.unwrap_or_default(),
        ..Sampling::default()
    })
}

fn allowed(fields: &mut Fields, vocabulary: usize) -> Result<Option<Arc<[u32]>>, Refusal> {
    match fields.ids("allowed_token_ids", vocabulary)? {
        Some(ids) if ids.is_empty() => {
            let told = "`allowed_token_ids` is empty, want some token ids, or leave it out";
            Err(Refusal::about("allowed_token_ids", told))
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
    let good = |stops: &Vec<String>| {
        stops.len() <= MOST_STOPS && stops.iter().all(|stop| !stop.is_empty())
    };
    let want = "a string or a list of up to 4, none of them empty";
    strings.filter(good).ok_or_else(|| Refusal::field("stop", &value, want))
}

fn reply(fields: &mut Fields) -> Result<Reply, Refusal> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(options) = fields.take("stream_options") else {
        return Ok(if stream { Reply::Stream(Include::Nothing) } else { Reply::Whole });
    };
    if !stream {
        return Err(Refusal::about("stream_options", "`stream_options` is for `stream` alone"));
    }
    let mut options = Fields::within(options, "stream_options")?;
    let usage = options.boolean("include_usage")?.unwrap_or(false);
    options.end()?;
    Ok(Reply::Stream(if usage { Include::Usage } else { Include::Nothing }))
}
