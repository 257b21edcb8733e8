//! What the layers of a pass share, made of its batch.

use std::borrow::Cow;

use candle_core::Tensor;
use embodied_r_kernels::attention::GroupSpan;
use embodied_r_kernels::pool;

use super::Policy;
use crate::decoder::{Activations, Ends, Pass, Sharing};
use crate::error::Result;
use crate::noise;
use crate::packed::PackedBatch;

impl Policy {
    /// What the layers share; `noise` for a pass of training, whose dropout follows from it.
    pub(crate) fn pass<'a>(&self, batch: &'a PackedBatch, noise: Option<u64>) -> Pass<'a> {
        let keys = self.dropout_keys(batch, noise);
        let pick = |keys: &Vec<u64>| batch.ends.iter().map(|row| keys[*row]).collect();
        let positions: Vec<usize> = batch.ends.iter().map(|row| batch.positions[*row]).collect();
        let ends = (batch.ends.len() < batch.ids.len()).then(|| {
            let spans = Cow::Owned(batch.end_spans());
            let pass = self.pass_of(&positions, spans, keys.as_ref().map(pick));
            Box::new(Ends { rows: batch.ends.clone(), pass })
        });
        Pass { ends, ..self.pass_of(&batch.positions, Cow::Borrowed(&batch.spans), keys) }
    }

    /// As [`Self::pass`], of the rows from `first` on, behind a prompt of which no more than keys and values are
    /// there.
    pub(crate) fn pass_behind<'a>(
        &self,
        batch: &'a PackedBatch,
        first: usize,
        noise: Option<u64>,
    ) -> Pass<'a> {
        let silent = |span: &GroupSpan| GroupSpan { silent: first, ..span.clone() };
        let keys = self.dropout_keys(batch, noise).map(|mut keys| keys.split_off(first));
        let spans = batch.spans.iter().map(silent).collect();
        self.pass_of(&batch.positions[first..], Cow::Owned(spans), keys)
    }

    /// The output of all layers over `x`, at the pass's ends. `taken` gets each layer's number and input, and what its
    /// backward needs beside that.
    pub(crate) fn through<'p>(
        &self,
        mut x: Tensor,
        pass: &Pass<'_>,
        sharing: impl Fn(usize) -> Sharing<'p> + Sync,
        mut taken: impl FnMut(usize, Tensor, Activations) -> Result<()> + Send,
    ) -> Result<Tensor> {
        let layers = &self.decoder.layers;
        pool::awake(self.device(), || {
            for (index, layer) in layers.iter().enumerate() {
                let ends = pass.ends(index, layers.len());
                let (y, activations) = layer.forward(&x, pass, ends, sharing(index))?;
                taken(index, std::mem::replace(&mut x, y), activations)?;
                self.passed_layer();
            }
            Ok(x)
        })
    }

    fn dropout_keys(&self, batch: &PackedBatch, noise: Option<u64>) -> Option<Vec<u64>> {
        noise.filter(|_| self.drops()).map(|noise| noise::keys(batch, noise))
    }

    fn pass_of<'a>(
        &self,
        positions: &[usize],
        spans: Cow<'a, [GroupSpan]>,
        dropout: Option<Vec<u64>>,
    ) -> Pass<'a> {
        Pass {
            angles: self.angles(positions),
            spans,
            heads: self.heads(),
            eps: self.config.rms_norm_eps,
            precision: self.precision,
            dropout,
            ends: None,
        }
    }
}
