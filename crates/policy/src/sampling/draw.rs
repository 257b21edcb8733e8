//! Draws tokens from logits.

use candle_core::Tensor;
use embodied_r_kernels::memory::{self, floats, to_host};
use embodied_r_kernels::sample::{self, RowSampling, SampledIndex, SamplingMode, Scan, Truncation};
use rayon::prelude::*;

use super::edits::{History, StopTokens, edits};
use super::{SampledToken, SamplingParams, TokenLogprobs};
use crate::error::{Result, TensorContext as _};

/// The samples to draw from one row of logits.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Sampling parameters.
    pub(crate) sampling: &'a SamplingParams,
    /// The sequence so far.
    pub(crate) history: History<'a>,
    /// A uniform random number in [0, 1) for each sample.
    pub(crate) uniforms: Vec<f64>,
}

/// Draws the samples of each row as [`draw`] does. Sampling runs on the device unless a row requests
/// log-probabilities, so that only tokens are copied to the host.
///
/// # Shapes
/// `logits` (rows, vocabulary), f32.
///
/// # Errors
/// Sampling on the device fails.
pub(crate) fn draw_rows(logits: &Tensor, rows: &[Row<'_>]) -> Result<Vec<Vec<SampledToken>>> {
    let (_, vocabulary) = logits.dims2().context("draw")?;
    let on_device = embodied_r_kernels::device::has_kernels(logits.device());
    if on_device && rows.iter().all(|row| row.sampling.logprobs.is_none()) {
        return drawn_on_device(logits, vocabulary, rows);
    }
    let logits = to_host(logits)?;
    let logits = floats(&logits, "sample")?;
    let rows = rows.par_iter().zip(logits.par_chunks(vocabulary));
    Ok(rows.map(|(row, logits)| row.draw(logits)).collect())
}

fn drawn_on_device(
    logits: &Tensor,
    vocabulary: usize,
    rows: &[Row<'_>],
) -> Result<Vec<Vec<SampledToken>>> {
    let choice = |(index, row): (usize, &Row<'_>)| {
        let Row { sampling, history, uniforms } = row;
        let mode = match sampling.temperature == 0.0 {
            true => SamplingMode::Greedy,
            false => SamplingMode::Random(uniforms.clone(), truncation(sampling)),
        };
        let edits = edits(vocabulary, sampling, *history, StopTokens::Barred);
        RowSampling { row: index, scale: scale(sampling), edits, mode }
    };
    let choices: Vec<RowSampling> = rows.iter().enumerate().map(choice).collect();
    let drawn = sample::draw(logits, &choices)?;
    let tokens = |(index, (row, draws)): (usize, (&Row<'_>, Vec<SampledIndex>))| {
        let token = |draw: &SampledIndex| {
            let logp = draw.log_probability as f32;
            Some(SampledToken { id: draw.index? as u32, logp, logprobs: None })
        };
        // Greedy decoding makes one draw for all samples.
        let draws = draws.iter().cycle().take(row.uniforms.len());
        match draws.map(token).collect() {
            Some(tokens) => Ok(tokens),
            // Rare: the parameters leave no token.
            None => {
                let logits = to_host(&memory::rows(logits, index..index + 1)?)?;
                Ok(row.draw(&floats(&logits, "sample")?))
            }
        }
    };
    rows.iter().zip(drawn).enumerate().map(tokens).collect()
}

impl Row<'_> {
    /// Draws each sample from the row's logits.
    fn draw(&self, logits: &[f32]) -> Vec<SampledToken> {
        let one = |uniform: &f64| draw(logits, self.sampling, self.history, *uniform);
        self.uniforms.iter().map(one).collect()
    }
}

/// The inverse temperature; finite, so that only non-finite logits give a log-probability of NaN.
fn scale(sampling: &SamplingParams) -> f64 {
    if sampling.temperature == 0.0 { 1.0 } else { (1.0 / sampling.temperature).min(f64::MAX) }
}

fn truncation(&SamplingParams { top_k, top_p, min_p, .. }: &SamplingParams) -> Truncation {
    Truncation { top_k, top_p, min_p }
}

/// Draws a token by inverse transform sampling: the token at `uniform`, in [0, 1), of the cumulative distribution
/// over the remaining ids in ascending order.
///
/// Placeholders of images are never drawn (`suppress_tokens` of TRL). Parameters apply in the order of vLLM's sampler, so
/// that a request has the same distribution there and here: allowed ids, `min_new_tokens`, bias, repetition penalty,
/// frequency and presence penalties, temperature, min-p, top-k, top-p. Greedy decoding takes the most likely token after penalties, with the lowest id among ties.
///
/// `transformers` applies min-p after top-p: if both are set, its top-p counts tokens that min-p then drops, ours
/// does not. Its top-k, like ours, keeps ties with the k-th token.
///
/// If the parameters leave no token, for example if all allowed ids are stop tokens before `min_new_tokens`, stop
/// tokens are allowed; if there is still none, the first allowed id is returned, or 0.
///
/// # Shapes
/// `logits` (vocabulary).
fn draw(
    logits: &[f32],
    sampling: &SamplingParams,
    history: History<'_>,
    uniform: f64,
) -> SampledToken {
    let raw = Scan::new(logits, scale(sampling));
    let chosen = [StopTokens::Barred, StopTokens::Free].into_iter().find_map(|stop| {
        let edits = edits(logits.len(), sampling, history, stop);
        match edits.is_empty() {
            true => choose(&raw, sampling, uniform),
            false => choose(&Scan::new(&edits.apply(logits), raw.scale()), sampling, uniform),
        }
    });
    let id = chosen.unwrap_or_else(|| {
        let allowed = sampling.allowed_token_ids.as_deref();
        allowed.and_then(|ids| ids.iter().min()).map_or(0, |id| *id as usize)
    });
    SampledToken {
        id: id as u32,
        logp: raw.log_probability(id) as f32,
        logprobs: sampling.logprobs.map(|count| token_logprobs(&raw, logits, id, count)),
    }
}

fn choose(scan: &Scan<'_>, sampling: &SamplingParams, uniform: f64) -> Option<usize> {
    if sampling.temperature == 0.0 {
        return scan.argmax();
    }
    let to = truncation(sampling);
    let drawn = match to == Truncation::default() {
        true => scan.draw(uniform),
        false => scan.truncated(&to).draw(uniform),
    };
    // A logit of ∞ leaves no weight to any token.
    drawn.or_else(|| scan.argmax())
}

/// The log-probabilities of the prompt token `id`, which follows these `logits`.
pub(crate) fn prompt_token_logprobs(logits: &[f32], id: u32, count: usize) -> TokenLogprobs {
    token_logprobs(&Scan::new(logits, 1.0), logits, id as usize, count)
}

fn token_logprobs(raw: &Scan<'_>, logits: &[f32], id: usize, count: usize) -> TokenLogprobs {
    let plain;
    let plain = match raw.scale() == 1.0 {
        true => raw,
        false => {
            plain = Scan::new(logits, 1.0);
            &plain
        }
    };
    let logprob = |id: usize| plain.log_probability(id) as f32;
    let top = plain.top_logits(count).into_iter().map(|(id, _)| (id, logprob(id as usize)));
    TokenLogprobs { logprob: logprob(id), top_logprobs: top.collect() }
}

#[cfg(test)]
mod tests;
