//! AdamW with sharded state (ZeRO-1): each rank owns a shard of the state, updates that shard of the weights and
//! all-gathers it.

use std::collections::VecDeque;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use embodied_r_dist::{Communicator, Pending};
use embodied_r_kernels::memory;
use embodied_r_kernels::{AdamwStep, adamw};

use super::shard_layout::{Segment, ShardLayout, concatenated, device, view, views};
use super::state_files::{Moment, StateFiles};
use crate::error::Result;
use crate::model::Model;

/// Collectives in flight at a time: enough to keep the links busy, few enough to use little memory.
pub(super) const IN_FLIGHT: usize = 4;

/// The reduced gradients of this rank's shard, stored in its own gradients.
pub(super) struct GradientShard {
    /// One per parameter.
    pub(super) gradients: Vec<Tensor>,
    /// The global gradient norm.
    pub(super) norm: f64,
}

/// A rank's shard of the state, bucket by bucket.
#[derive(Debug)]
pub(super) struct Sharded {
    pub(super) communicator: Communicator,
    pub(super) layout: ShardLayout,
    pub(super) buckets: Vec<Bucket>,
}

/// A rank's shard of a bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// The bucket's flat element range.
    pub(super) range: Range<usize>,
    /// This rank's elements, tensor by tensor.
    pub(super) segments: Vec<Segment>,
    /// The same as a flat element range.
    pub(super) owned: Range<usize>,
    first: Tensor,
    second: Tensor,
    /// The f32 master weights, if some weights have lower precision.
    master: Option<Tensor>,
}

impl Sharded {
    /// Zero moments for this rank's shard of `model`, or those in `stored`.
    pub(super) fn new<M: Model>(
        communicator: Communicator,
        model: &M,
        stored: Option<&StateFiles>,
    ) -> Result<Self> {
        let parameters = model.parameters();
        let sizes: Vec<usize> = parameters.iter().map(|(_, tensor)| tensor.elem_count()).collect();
        let (ranks, rank) = (communicator.world_size(), communicator.rank());
        let layout = ShardLayout::new(&sizes, ranks);
        let bucket = |range: Range<usize>| -> Result<Bucket> {
            let owned = layout.owned(&range, rank);
            let segments = layout.segments(owned.clone());
            let device = parameters.first().map_or(&Device::Cpu, |(_, tensor)| tensor.device());
            let read = |moment: Moment| -> Result<Tensor> {
                let Some(stored) = stored else {
                    return Ok(memory::zeros(&[owned.len()], device)?);
                };
                let mut elements = Vec::with_capacity(owned.len());
                for Segment { tensor, elements: range } in &segments {
                    elements.extend(stored.read(moment, &parameters[*tensor], range.clone())?);
                }
                Ok(memory::tensor(elements, owned.len())?.to_device(device)?)
            };
            let (first, second) = (read(Moment::First)?, read(Moment::Second)?);
            let master = master(&segments, &parameters, stored)?;
            Ok(Bucket { range, owned, segments, first, second, master })
        };
        let buckets = layout.buckets().map(bucket).collect::<Result<_>>()?;
        Ok(Self { communicator, layout, buckets })
    }

    /// Updates this rank's shard of the weights; [`Self::all_gather_weights`] distributes it.
    ///
    /// `step` receives the name of a tensor and whether it is a matrix.
    pub(super) fn step<M: Model>(
        &self,
        model: &M,
        reduced: &GradientShard,
        step: impl Fn(&str, bool) -> AdamwStep,
    ) -> Result<()> {
        let named = model.parameters();
        let parameters = tensors(model);
        for bucket in &self.buckets {
            let mut at = 0;
            for Segment { tensor, elements: range } in &bucket.segments {
                let here = at..at + range.len();
                let weights = view(&parameters[*tensor], range)?;
                let slice = |tensor: &Tensor| view(tensor, &here);
                let (first, second) = (slice(&bucket.first)?, slice(&bucket.second)?);
                let is_matrix = parameters[*tensor].rank() > 1;
                let gradient = view(&reduced.gradients[*tensor], range)?;
                let master = bucket.master.as_ref().map(slice).transpose()?;
                let moved = master.as_ref().unwrap_or(&weights);
                adamw(moved, &gradient, &first, &second, &step(&named[*tensor].0, is_matrix))?;
                if let Some(master) = master {
                    memory::overwrite(&weights, &master)?;
                }
                at = here.end;
            }
        }
        Ok(())
    }

    /// All-gathers the updated weight shards.
    pub(super) fn all_gather_weights<M: Model>(&self, model: &M) -> Result<()> {
        let parameters = tensors(model);
        let mut in_flight = VecDeque::new();
        for bucket in &self.buckets {
            let part = self.layout.shard_len(&bucket.range);
            let own = views(&bucket.segments, &parameters)?;
            let own = concatenated(&own, part, device(&parameters))?;
            in_flight.push_back((self.communicator.all_gather_tensor(own)?, &bucket.range));
            if in_flight.len() >= IN_FLIGHT
                && let Some((pending, range)) = in_flight.pop_front()
            {
                self.take(pending, range, &parameters)?;
            }
        }
        in_flight
            .into_iter()
            .try_for_each(|(pending, range)| self.take(pending, range, &parameters))
    }

    /// Scatters a gathered bucket into the weights.
    fn take(
        &self,
        pending: Pending<Tensor>,
        range: &Range<usize>,
        parameters: &[Tensor],
    ) -> Result<()> {
        self.layout.scatter(range, &pending.wait()?, parameters)
    }

    /// This rank's moments and master weights, named by parameter and offset.
    pub(super) fn named_tensors<M: Model>(&self, model: &M) -> Result<Vec<(String, Tensor)>> {
        let parameters = model.parameters();
        let mut pieces = Vec::new();
        for bucket in &self.buckets {
            let mut at = 0;
            for Segment { tensor, elements } in &bucket.segments {
                let here = at..at + elements.len();
                let name = &parameters[*tensor].0;
                let moments = [(Moment::First, &bucket.first), (Moment::Second, &bucket.second)];
                let master = parameters[*tensor].1.dtype() != DType::F32;
                let master = bucket.master.as_ref().filter(|_| master);
                let master = master.map(|master| (Moment::Master, master));
                for (moment, of) in moments.into_iter().chain(master) {
                    pieces.push((moment.shard_name(name, elements.start), view(of, &here)?));
                }
                at = here.end;
            }
        }
        Ok(pieces)
    }
}

/// The f32 master weights of `segments`, if some have lower precision: the stored ones, or copies of the weights.
fn master(
    segments: &[Segment],
    parameters: &[(String, Tensor)],
    stored: Option<&StateFiles>,
) -> Result<Option<Tensor>> {
    let is_coarse = |segment: &Segment| parameters[segment.tensor].1.dtype() != DType::F32;
    if !segments.iter().any(is_coarse) {
        return Ok(None);
    }
    let part = |Segment { tensor, elements: range }: &Segment| -> Result<Tensor> {
        let (name, weights) = &parameters[*tensor];
        let stored = stored.filter(|stored| stored.has(Moment::Master, name));
        match stored {
            Some(stored) => {
                let elements = stored.read(Moment::Master, &parameters[*tensor], range.clone())?;
                Ok(memory::tensor(elements, range.len())?.to_device(weights.device())?)
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
