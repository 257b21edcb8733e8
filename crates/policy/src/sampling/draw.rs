//! The draw of tokens.

use candle_core::Tensor;
use embodied_r_kernels::memory::{self, fetched, floats};
use embodied_r_kernels::sample::{self, Choice, Draw, Pick, Scan, Truncation};
use rayon::prelude::*;

use super::edits::{StopTokens, edits};
use super::{Report, Sampling, Token};
use crate::error::{During as _, Result};

/// What a sequence has so far, for the penalties.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History<'a> {
    /// Ids of the prompt.
    pub(crate) prompt: &'a [u32],
    /// Ids of the completion.
    pub(crate) completion: &'a [u32],
}

/// What is drawn from a row of logits.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// How.
    pub(crate) sampling: &'a Sampling,
    /// What the sequence has so far.
    pub(crate) history: History<'a>,
    /// For each sample a number in [0, 1).
    pub(crate) uniforms: Vec<f64>,
}

/// Draws the samples of each row, as [`draw`] does, where the logits are: of a device's, the tokens alone come
/// back, unless one of the rows reports more.
///
/// # Shapes
/// `logits` (rows, vocabulary), f32.
///
/// # Errors
/// The device cannot draw.
pub(crate) fn draw_rows(logits: &Tensor, rows: &[Row<'_>]) -> Result<Vec<Vec<Token>>> {
    let (_, vocabulary) = logits.dims2().during("draw")?;
    let on_device = embodied_r_kernels::device::has_kernels(logits.device());
    if on_device && rows.iter().all(|row| row.sampling.logprobs.is_none()) {
        return drawn_on_device(logits, vocabulary, rows);
    }
    let logits = fetched(logits)?;
    let logits = floats(&logits, "sample")?;
    let rows = rows.par_iter().zip(logits.par_chunks(vocabulary));
    Ok(rows.map(|(row, logits)| row.draw(logits)).collect())
}

fn drawn_on_device(
    logits: &Tensor,
    vocabulary: usize,
    rows: &[Row<'_>],
) -> Result<Vec<Vec<Token>>> {
    let choice = |(index, row): (usize, &Row<'_>)| {
        let Row { sampling, history, uniforms } = row;
        let pick = match sampling.temperature == 0.0 {
            true => Pick::Largest,
            false => Pick::At(uniforms.clone(), truncation(sampling)),
        };
        let edits = edits(vocabulary, sampling, *history, StopTokens::Barred);
        Choice { row: index, scale: scale(sampling), edits, pick }
    };
    let choices: Vec<Choice> = rows.iter().enumerate().map(choice).collect();
    let drawn = sample::draw(logits, &choices)?;
    let tokens = |(index, (row, draws)): (usize, (&Row<'_>, Vec<Draw>))| {
        let token = |draw: &Draw| {
            let logp = draw.log_probability as f32;
            Some(Token { id: draw.index? as u32, logp, report: None })
        };
        // Of the likeliest token there is one draw for all.
        let draws = draws.iter().cycle().take(row.uniforms.len());
        match draws.map(token).collect() {
            Some(tokens) => Ok(tokens),
            // The parameters leave no token, which is rare.
            None => {
                let logits = fetched(&memory::rows(logits, index..index + 1)?)?;
                Ok(row.draw(&floats(&logits, "sample")?))
            }
        }
    };
    rows.iter().zip(drawn).enumerate().map(tokens).collect()
}

impl Row<'_> {
    /// Draws each sample from the row's logits.
    fn draw(&self, logits: &[f32]) -> Vec<Token> {
        let one = |uniform: &f64| draw(logits, self.sampling, self.history, *uniform);
        self.uniforms.iter().map(one).collect()
    }
}

/// What logits are multiplied by.
fn scale(sampling: &Sampling) -> f64 {
    if sampling.temperature == 0.0 { 1.0 } else { 1.0 / sampling.temperature }
}

fn truncation(&Sampling { top_k, top_p, min_p, .. }: &Sampling) -> Truncation {
    Truncation { top_k, top_p, min_p }
}

/// Draws the token at `uniform`, a number in [0, 1), of the cumulative distribution over the ids that
/// are left, in the ids' order.
///
/// The parameters act in the order of vLLM's sampler, so that a request gives the same distribution
/// there and here: allowed ids, bars of stop tokens, bias, repetition penalty, frequency and presence
/// penalties, temperature, min-p, top-k, top-p. At temperature 0 the likeliest token after the
/// penalties is taken, the one with the lowest id among equals.
///
/// `transformers` has min-p behind top-p: where both are set, its top-p counts probability that min-p
/// then drops, and ours does not. Its top-k, as ours, keeps the tokens that are as likely as the k-th.
///
/// Where the parameters leave no token, as allowed ids that are all barred stop tokens do, the stop
/// tokens are free again; if none is left even so, the first allowed id is taken, or 0.
///
/// # Shapes
/// `logits` (vocabulary).
fn draw(logits: &[f32], sampling: &Sampling, history: History<'_>, uniform: f64) -> Token {
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
    Token {
        id: id as u32,
        logp: raw.log_probability(id) as f32,
        report: sampling.logprobs.map(|count| report(&raw, logits, id, count)),
    }
}

fn choose(scan: &Scan<'_>, sampling: &Sampling, uniform: f64) -> Option<usize> {
    if sampling.temperature == 0.0 {
        return scan.largest();
    }
    let to = truncation(sampling);
    let drawn = match to == Truncation::default() {
        true => scan.draw(uniform),
        false => scan.kept(&to).draw(uniform),
    };
    // Beside a logit of ∞ no other has weight, nor has it one itself.
    drawn.or_else(|| scan.largest())
}

fn report(raw: &Scan<'_>, logits: &[f32], id: usize, count: usize) -> Report {
    let plain;
    let plain = match raw.scale() == 1.0 {
        true => raw,
        false => {
            plain = Scan::new(logits, 1.0);
            &plain
        }
    };
    let logprob = |id: usize| plain.log_probability(id) as f32;
    let top = plain.likeliest(count).into_iter().map(|(id, _)| (id, logprob(id as usize)));
    Report { logprob: logprob(id), top: top.collect() }
}

#[cfg(test)]
mod tests;
