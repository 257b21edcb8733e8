//! Prepares a batch's pass through the layers.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use candle_core::Tensor;
use embodied_r_kernels::attention::GroupSpan;
use embodied_r_kernels::rope::CosSinCache;
use embodied_r_kernels::thread_pool;

use super::Policy;
use crate::decoder::{Activations, OutputRows, Pass, PromptSharing};
use crate::dropout;
use crate::error::Result;
use crate::image_rows::Embedded;
use crate::packed::PackedBatch;
use crate::prompt::MropePosition;

impl Policy {
    /// The pass of `batch`; `dropout_seed` enables dropout in training.
    pub(crate) fn pass<'a>(
        &self,
        batch: &'a PackedBatch,
        dropout_seed: Option<u64>,
    ) -> Result<Pass<'a>> {
        let keys = self.dropout_keys(batch, dropout_seed);
        let pick = |keys: &Vec<u64>| batch.output_rows.iter().map(|row| keys[*row]).collect();
        let output_rows = || -> Result<_> {
            let spans = Cow::Owned(batch.output_spans());
            let positions = || batch.output_rows.iter().map(|row| batch.positions[*row]).collect();
            let cos_sin = self.cos_sin(&batch.cos_sin.output_rows, positions)?;
            let pass = self.pass_of(cos_sin, spans, keys.as_ref().map(pick));
            Ok(Box::new(OutputRows { rows: batch.output_rows.clone(), pass }))
        };
        let fewer = batch.output_rows.len() < batch.ids.len();
        let output_rows = fewer.then(output_rows).transpose()?;
        let cos_sin = self.cos_sin(&batch.cos_sin.all, || batch.positions.clone())?;
        Ok(Pass { output_rows, ..self.pass_of(cos_sin, Cow::Borrowed(&batch.spans), keys) })
    }

    /// As [`Self::pass`], for the rows from `first` on, after a prompt that only contributes keys and values.
    pub(crate) fn pass_after_prompt<'a>(
        &self,
        batch: &'a PackedBatch,
        first: usize,
        dropout_seed: Option<u64>,
    ) -> Result<Pass<'a>> {
        let kv_only_prompt = |span: &GroupSpan| GroupSpan { kv_only: first, ..span.clone() };
        let keys = self.dropout_keys(batch, dropout_seed).map(|mut keys| keys.split_off(first));
        let spans = batch.spans.iter().map(kv_only_prompt).collect();
        let cos_sin =
            self.cos_sin(&batch.cos_sin.after_prompt, || batch.positions[first..].to_vec())?;
        Ok(self.pass_of(cos_sin, Cow::Owned(spans), keys))
    }

    /// Runs all layers on the embeddings and returns the output at the pass's output rows. `save` gets each layer's index,
    /// input and activations.
    pub(crate) fn forward_layers<'p>(
        &self,
        embedded: Embedded,
        pass: &Pass<'_>,
        sharing: impl Fn(usize) -> PromptSharing<'p> + Sync,
        mut save: impl FnMut(usize, Tensor, Activations) -> Result<()> + Send,
    ) -> Result<Tensor> {
        let layers = &self.decoder.layers;
        let mut x = embedded.x.clone();
        thread_pool::with_spinning_workers(self.device(), || {
            for (index, layer) in layers.iter().enumerate() {
                let output_rows = pass.output_rows(index, layers.len());
                let (y, activations) = layer.forward(&x, pass, output_rows, sharing(index))?;
                embedded.add_to(index, &y, output_rows.map(|it| &it.rows[..]))?;
                save(index, std::mem::replace(&mut x, y), activations)?;
                self.call_layer_hook();
            }
            Ok(x)
        })
    }

    /// The cosines and sines of the rows at `positions`, from `cached` if a pass of the batch has stored them.
    fn cos_sin(
        &self,
        cached: &OnceLock<Arc<CosSinCache>>,
        positions: impl FnOnce() -> Vec<MropePosition>,
    ) -> Result<Arc<CosSinCache>> {
        if let Some(cos_sin) = cached.get() {
            return Ok(cos_sin.clone());
        }
        let cos_sin = Arc::new(self.config.rope.cos_sin(&positions(), &self.frequencies)?);
        Ok(cached.get_or_init(|| cos_sin).clone())
    }

    fn dropout_keys(&self, batch: &PackedBatch, dropout_seed: Option<u64>) -> Option<Vec<u64>> {
        dropout_seed
            .filter(|_| self.has_dropout())
            .map(|dropout_seed| dropout::keys(batch, dropout_seed))
    }

    fn pass_of<'a>(
        &self,
        cos_sin: Arc<CosSinCache>,
        spans: Cow<'a, [GroupSpan]>,
        dropout: Option<Vec<u64>>,
    ) -> Pass<'a> {
        Pass {
            cos_sin,
            spans,
            heads: self.heads(),
            eps: self.config.rms_norm_eps,
            precision: self.precision,
            dropout,
            output_rows: None,
        }
    }
}
