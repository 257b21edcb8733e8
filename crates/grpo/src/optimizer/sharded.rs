//! AdamW of which every rank does a part: it owns the moments of its part, moves its part of the weights, and hands it
//! to the others.

use std::collections::VecDeque;
use std::ops::Range;

use candle_core::{Device, Tensor};
use embodied_r_dist::{Communicator, Pending, Reduce};
use embodied_r_kernels::memory::{self, floats};
use embodied_r_kernels::{AdamwStep, adamw};

use super::shards::{Layout, Segment, view};
use super::stored::{Moment, Stored};
use crate::error::{Error, Result};
use crate::model::{Gradients, Model};

const OP: &str = "shard";

/// Buckets on their way at the same time: enough to keep the links busy, few enough to take little memory.
const IN_FLIGHT: usize = 4;

/// A rank's part of the moments, bucket by bucket.
#[derive(Debug)]
pub(super) struct Sharded {
    communicator: Communicator,
    layout: Layout,
    buckets: Vec<Bucket>,
}

/// What a rank owns of a bucket.
#[derive(Debug)]
struct Bucket {
    /// The bucket's numbers among all.
    whole: Range<usize>,
    /// Those of this rank, tensor by tensor.
    segments: Vec<Segment>,
    owned: usize,
    first: Tensor,
    second: Tensor,
}

/// The sums of the gradients over all ranks, as far as this rank owns them.
pub(super) struct Reduced {
    /// Bucket by bucket.
    parts: Vec<Tensor>,
    /// The norm over all ranks' parts.
    pub(super) norm: f64,
}

impl Sharded {
    /// Moments of 0 for this rank's part of `model`, or those that `stored` has.
    pub(super) fn new<M: Model>(
        communicator: Communicator,
        model: &M,
        stored: Option<&Stored>,
    ) -> Result<Self> {
        let parameters = model.parameters();
        let sizes: Vec<usize> = parameters.iter().map(|(_, tensor)| tensor.elem_count()).collect();
        let (ranks, rank) = (communicator.world_size(), communicator.rank());
        let layout = Layout::new(&sizes, ranks);
        let bucket = |whole: Range<usize>| -> Result<Bucket> {
            let owned = layout.owned(&whole, rank);
            let segments = layout.segments(owned.clone());
            let read = |moment: Moment| -> Result<Tensor> {
                let Some(stored) = stored else {
                    return Ok(memory::zeros(&[owned.len()], &Device::Cpu)?);
                };
                let mut numbers = Vec::with_capacity(owned.len());
                for Segment { tensor, numbers: range } in &segments {
                    numbers.extend(stored.read(moment, &parameters[*tensor], range.clone())?);
                }
                Ok(memory::tensor(numbers, owned.len())?)
            };
            let (first, second) = (read(Moment::First)?, read(Moment::Second)?);
            Ok(Bucket { owned: owned.len(), segments, first, second, whole })
        };
        let buckets = layout.buckets().map(bucket).collect::<Result<_>>()?;
        Ok(Self { communicator, layout, buckets })
    }

    /// Sums the gradients of all ranks; each gets its part. They are on their way while the next ones are copied.
    pub(super) fn reduce<M: Model>(&self, model: &M, gradients: &M::Gradients) -> Result<Reduced> {
        let missing = |name: &str| Error::Model { what: format!("has no gradient for `{name}`") };
        let tensors: Vec<Tensor> = model
            .parameters()
            .iter()
            .map(|(name, _)| gradients.get(name).cloned().ok_or_else(|| missing(name)))
            .collect::<Result<_>>()?;
        let mut parts = Vec::with_capacity(self.buckets.len());
        let mut on_their_way = VecDeque::new();
        let mut take = |pending: Pending<Vec<f32>>, owned: usize| -> Result<()> {
            let mut part = pending.wait()?;
            part.truncate(owned);
            parts.push(memory::tensor(part, owned)?);
            Ok(())
        };
        for bucket in &self.buckets {
            let numbers = self.layout.gathered(&bucket.whole, &tensors)?;
            on_their_way.push_back((self.communicator.reduce_scatter(numbers)?, bucket.owned));
            if on_their_way.len() >= IN_FLIGHT
                && let Some((pending, owned)) = on_their_way.pop_front()
            {
                take(pending, owned)?;
            }
        }
        for (pending, owned) in on_their_way {
            take(pending, owned)?;
        }
        let mut squares = 0.0;
        for part in &parts {
            squares += memory::sum_of_squares(&floats(part, OP)?);
        }
        let sums = self.communicator.all_reduce_f64(vec![squares], Reduce::Sum)?.wait()?;
        let norm = sums.first().copied().unwrap_or(f64::NAN).sqrt();
        Ok(Reduced { parts, norm })
    }

    /// Moves this rank's part of the weights, and gives every rank those of the others.
    ///
    /// `step` is told whether a tensor is a matrix.
    pub(super) fn step<M: Model>(
        &self,
        model: &M,
        reduced: &Reduced,
        step: impl Fn(bool) -> AdamwStep,
    ) -> Result<()> {
        let parameters: Vec<Tensor> =
            model.parameters().into_iter().map(|(_, tensor)| tensor).collect();
        let mut on_their_way = VecDeque::new();
        for (bucket, gradient) in self.buckets.iter().zip(&reduced.parts) {
            let mut numbers = Vec::with_capacity(self.layout.part(&bucket.whole));
            let mut at = 0;
            for Segment { tensor, numbers: range } in &bucket.segments {
                let here = at..at + range.len();
                let parameter = view(&parameters[*tensor], range)?;
                let of = |tensor: &Tensor| view(tensor, &here);
                let (first, second) = (of(&bucket.first)?, of(&bucket.second)?);
                let is_matrix = parameters[*tensor].rank() > 1;
                adamw(&parameter, &of(gradient)?, &first, &second, &step(is_matrix))?;
                numbers.extend_from_slice(&floats(&parameter, OP)?);
                at = here.end;
            }
            numbers.resize(self.layout.part(&bucket.whole), 0.0);
            on_their_way.push_back((self.communicator.all_gather(numbers)?, &bucket.whole));
            if on_their_way.len() >= IN_FLIGHT
                && let Some((pending, whole)) = on_their_way.pop_front()
            {
                self.take(pending, whole, &parameters)?;
            }
        }
        on_their_way
            .into_iter()
            .try_for_each(|(pending, whole)| self.take(pending, whole, &parameters))
    }

    /// Puts the weights of a bucket where they belong.
    fn take(
        &self,
        pending: Pending<Vec<f32>>,
        whole: &Range<usize>,
        parameters: &[Tensor],
    ) -> Result<()> {
        let numbers = pending.wait()?;
        let numbers = numbers.get(..whole.len()).unwrap_or_default();
        self.layout.scatter(whole, numbers, parameters)
    }

    /// This rank's moments, each with its place in the tensor that it belongs to.
    pub(super) fn pieces<M: Model>(&self, model: &M) -> Result<Vec<(String, Tensor)>> {
        let parameters = model.parameters();
        let mut pieces = Vec::new();
        for bucket in &self.buckets {
            let mut at = 0;
            for Segment { tensor, numbers } in &bucket.segments {
                let here = at..at + numbers.len();
                let name = &parameters[*tensor].0;
                for (moment, of) in
                    [(Moment::First, &bucket.first), (Moment::Second, &bucket.second)]
                {
                    pieces.push((moment.piece(name, numbers.start), view(of, &here)?));
                }
                at = here.end;
            }
        }
        Ok(pieces)
    }
}
