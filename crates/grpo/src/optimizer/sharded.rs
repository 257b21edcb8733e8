//! AdamW of which every rank does a part: it owns the moments of its part, moves its part of the weights, and hands it
//! to the others.

use std::collections::VecDeque;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use embodied_r_dist::{Communicator, Pending};
use embodied_r_kernels::memory;
use embodied_r_kernels::{AdamwStep, adamw};

use super::reducing::{IN_FLIGHT, Reduced};
use super::shards::{Layout, Segment, device, joined, view, views};
use super::stored::{Moment, Stored};
use crate::error::Result;
use crate::model::Model;

/// A rank's part of the moments, bucket by bucket.
#[derive(Debug)]
pub(super) struct Sharded {
    pub(super) communicator: Communicator,
    pub(super) layout: Layout,
    pub(super) buckets: Vec<Bucket>,
}

/// What a rank owns of a bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// The bucket's numbers among all.
    pub(super) whole: Range<usize>,
    /// Those of this rank, tensor by tensor.
    pub(super) segments: Vec<Segment>,
    /// The same among all numbers.
    pub(super) owned: Range<usize>,
    first: Tensor,
    second: Tensor,
    /// The weights in f32, where some of them are held in fewer bits.
    master: Option<Tensor>,
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
            let device = parameters.first().map_or(&Device::Cpu, |(_, tensor)| tensor.device());
            let read = |moment: Moment| -> Result<Tensor> {
                let Some(stored) = stored else {
                    return Ok(memory::zeros(&[owned.len()], device)?);
                };
                let mut numbers = Vec::with_capacity(owned.len());
                for Segment { tensor, numbers: range } in &segments {
                    numbers.extend(stored.read(moment, &parameters[*tensor], range.clone())?);
                }
                Ok(memory::tensor(numbers, owned.len())?.to_device(device)?)
            };
            let (first, second) = (read(Moment::First)?, read(Moment::Second)?);
            let master = master(&segments, &parameters, stored)?;
            Ok(Bucket { owned, segments, first, second, master, whole })
        };
        let buckets = layout.buckets().map(bucket).collect::<Result<_>>()?;
        Ok(Self { communicator, layout, buckets })
    }

    /// Moves this rank's part of the weights; [`Self::hand_round`] gives it to the others.
    ///
    /// `step` is told whether a tensor is a matrix.
    pub(super) fn step<M: Model>(
        &self,
        model: &M,
        reduced: &Reduced,
        step: impl Fn(bool) -> AdamwStep,
    ) -> Result<()> {
        let parameters = tensors(model);
        for bucket in &self.buckets {
            let mut at = 0;
            for Segment { tensor, numbers: range } in &bucket.segments {
                let here = at..at + range.len();
                let weights = view(&parameters[*tensor], range)?;
                let of = |tensor: &Tensor| view(tensor, &here);
                let (first, second) = (of(&bucket.first)?, of(&bucket.second)?);
                let is_matrix = parameters[*tensor].rank() > 1;
                let gradient = view(&reduced.gradients[*tensor], range)?;
                let master = bucket.master.as_ref().map(of).transpose()?;
                let moved = master.as_ref().unwrap_or(&weights);
                adamw(moved, &gradient, &first, &second, &step(is_matrix))?;
                if let Some(master) = master {
                    memory::overwrite(&weights, &master)?;
                }
                at = here.end;
            }
        }
        Ok(())
    }

    /// Gives every rank the weights that the others have moved.
    pub(super) fn hand_round<M: Model>(&self, model: &M) -> Result<()> {
        let parameters = tensors(model);
        let mut on_their_way = VecDeque::new();
        for bucket in &self.buckets {
            let part = self.layout.part(&bucket.whole);
            let own = views(&bucket.segments, &parameters)?;
            let own = joined(&own, part, device(&parameters))?;
            on_their_way.push_back((self.communicator.all_gather_tensor(own)?, &bucket.whole));
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
        pending: Pending<Tensor>,
        whole: &Range<usize>,
        parameters: &[Tensor],
    ) -> Result<()> {
        self.layout.scatter(whole, &pending.wait()?, parameters)
    }

    /// This rank's moments and masters, each with its place in the tensor that it belongs to.
    pub(super) fn pieces<M: Model>(&self, model: &M) -> Result<Vec<(String, Tensor)>> {
        let parameters = model.parameters();
        let mut pieces = Vec::new();
        for bucket in &self.buckets {
            let mut at = 0;
            for Segment { tensor, numbers } in &bucket.segments {
                let here = at..at + numbers.len();
                let name = &parameters[*tensor].0;
                let moments = [(Moment::First, &bucket.first), (Moment::Second, &bucket.second)];
                let master = parameters[*tensor].1.dtype() != DType::F32;
                let master = bucket.master.as_ref().filter(|_| master);
                let master = master.map(|master| (Moment::Master, master));
                for (moment, of) in moments.into_iter().chain(master) {
                    pieces.push((moment.piece(name, numbers.start), view(of, &here)?));
                }
                at = here.end;
            }
        }
        Ok(pieces)
    }
}

/// The f32 numbers of `segments`, if some are held in fewer bits: as they were stored, or as the weights are now.
fn master(
    segments: &[Segment],
    parameters: &[(String, Tensor)],
    stored: Option<&Stored>,
) -> Result<Option<Tensor>> {
    let is_coarse = |segment: &Segment| parameters[segment.tensor].1.dtype() != DType::F32;
    if !segments.iter().any(is_coarse) {
        return Ok(None);
    }
    let part = |Segment { tensor, numbers: range }: &Segment| -> Result<Tensor> {
        let (name, weights) = &parameters[*tensor];
        let stored = stored.filter(|stored| stored.has(Moment::Master, name));
        match stored {
            Some(stored) => {
                let numbers = stored.read(Moment::Master, &parameters[*tensor], range.clone())?;
                Ok(memory::tensor(numbers, range.len())?.to_device(weights.device())?)
            }
            None => Ok(view(weights, range)?.to_dtype(DType::F32)?),
        }
    };
    let parts = segments.iter().map(part).collect::<Result<Vec<_>>>()?;
    Ok(Some(Tensor::cat(&parts, 0)?))
}

fn tensors<M: Model>(model: &M) -> Vec<Tensor> {
    model.parameters().into_iter().map(|(_, tensor)| tensor).collect()
}
