//! Log-probabilities of prompt tokens, from the logits of the tokens before them.

use candle_core::Tensor;
use embodied_r_kernels::embedding;
use embodied_r_kernels::memory::{self, floats, to_host};
use rayon::prelude::*;

use super::logit_rows::LogitRows;
use super::{Engine, EngineOutput};
use crate::error::{Result, TensorContext as _};
use crate::sampling::{TokenLogprobs, prompt_token_logprobs};

/// Maximum number of prompt tokens per step whose logits are computed: at 150,000 tokens, 256 rows take 154 MB.
pub(super) const MAX_PROMPT_LOGIT_ROWS: usize = 256;

impl Engine {
    /// Records the requested log-probabilities of prompt tokens, and returns the rows of logits to sample from.
    pub(super) fn take_prompt_logprobs(
        &mut self,
        requested: &[LogitRows],
        logits: Tensor,
    ) -> Result<Tensor> {
        let (total, vocabulary) = logits.dims2().context("read logits")?;
        let mut sampled = Vec::new();
        let mut start = 0;
        for &LogitRows { group, position, rows, is_ready } in requested {
            let end = start + rows;
            if is_ready {
                sampled.push(end - 1);
            }
            let group = &mut self.running[group];
            let count = group.sampling.prompt_logprobs.unwrap_or_default();
            if let Some(known) = &mut group.prompt_logprobs {
                let rows = to_host(&memory::rows(&logits, start..end)?)?;
                let rows = floats(&rows, "read logits")?;
                // A group that was preempted computes tokens again whose successors are known. The last row's is sampled.
                let following = group.prompt.ids().iter().skip(position + 1);
                let rows: Vec<_> = rows.chunks(vocabulary).zip(following).collect();
                let skipped = known.len().saturating_sub(position).min(rows.len());
                let new = rows[skipped..].par_iter();
                let new = new.map(|(logits, id)| prompt_token_logprobs(logits, **id, count));
                known.extend(new.collect::<Vec<TokenLogprobs>>());
            }
            start = end;
        }
        match sampled.len() == total {
            true => Ok(logits),
            false => Ok(embedding::gather(&logits, &sampled)?),
        }
    }

    /// Reports the groups among `ready` whose prompts are computed.
    pub(super) fn report_prefilled(&mut self, ready: &[usize], outputs: &mut Vec<EngineOutput>) {
        for index in ready {
            let group = &mut self.running[*index];
            if group.ids.is_empty() {
                let (request, logprobs) = (group.request, group.prompt_logprobs.take());
                let cached_tokens = group.cached.unwrap_or_default();
                outputs.push(EngineOutput::Prefilled { request, cached_tokens, logprobs });
            }
        }
    }
}
