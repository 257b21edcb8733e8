//! Gradient reductions in flight, overlapped with the backward pass.
//!
//! The backward pass runs from the last layer to the first, and so do the buckets: in the same order on all ranks, so
//! that their collectives match. The order does not change the sums' bits.

use std::collections::VecDeque;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_dist::{Communicator, Pending, Reduce};
use embodied_r_kernels::memory;

use super::shard_layout::{Segment, concatenated, view};
use super::sharded::{Bucket, GradientShard, IN_FLIGHT, Sharded};
use crate::error::Result;

/// Reduce-scatters gradient buckets for the sharded optimizer.
pub(super) struct ReduceScatterQueue {
    sharded: Arc<Sharded>,
    gradients: Vec<Tensor>,
    /// Number of buckets not sent yet: the first ones.
    left: usize,
    in_flight: VecDeque<(Pending<Tensor>, Range<usize>)>,
}

impl ReduceScatterQueue {
    /// Starts with `gradients`, one per parameter.
    pub(super) fn new(sharded: &Arc<Sharded>, gradients: Vec<Tensor>) -> Self {
        let (left, in_flight) = (sharded.buckets.len(), VecDeque::new());
        Self { sharded: Arc::clone(sharded), gradients, left, in_flight }
    }

    /// Sends the buckets whose elements are all final, given that those from `from` on are.
    pub(super) fn send_from(&mut self, from: usize) -> Result<()> {
        while let Some(last) = self.left.checked_sub(1) {
            let Sharded { communicator, layout, buckets } = &*self.sharded;
            let Bucket { range, owned, .. } = &buckets[last];
            if range.start < from {
                break;
            }
            self.left = last;
            let elements = layout.gather(range, &self.gradients)?;
            let sums = communicator.reduce_scatter_tensor(elements)?;
            self.in_flight.push_back((sums, owned.clone()));
            if self.in_flight.len() >= IN_FLIGHT {
                self.wait_one()?;
            }
        }
        Ok(())
    }

    /// Waits for the oldest bucket in flight.
    fn wait_one(&mut self) -> Result<()> {
        let Some((pending, owned)) = self.in_flight.pop_front() else { return Ok(()) };
        let sums = pending.wait()?;
        self.sharded.layout.scatter(&owned, &sums, &self.gradients)
    }

    /// Waits for all buckets in flight.
    pub(super) fn wait_all(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.wait_one()?;
        }
        Ok(())
    }

    /// The reduced gradients with their global norm.
    pub(super) fn into_sums(self) -> Result<GradientShard> {
        let mut squares = 0.0;
        for Segment { tensor, elements } in self.sharded.buckets.iter().flat_map(|b| &b.segments) {
            squares += memory::squared_norm(&view(&self.gradients[*tensor], elements)?)?;
        }
        let communicator = &self.sharded.communicator;
        let sums = communicator.all_reduce_f64(vec![squares], Reduce::Sum)?.wait()?;
        let norm = sums.first().copied().unwrap_or(f64::NAN).sqrt();
        Ok(GradientShard { gradients: self.gradients, norm })
    }
}

/// All-reduces gradients, tensor by tensor, in place.
pub(super) struct AllReduceQueue {
    communicator: Communicator,
    /// Tensors not sent yet, with the flat index of their first element.
    left: Vec<(usize, Tensor)>,
    in_flight: VecDeque<(Pending<Tensor>, Tensor)>,
}

impl AllReduceQueue {
    pub(super) fn new(communicator: Communicator, gradients: Vec<Tensor>) -> Self {
        let mut start = 0;
        let of = |tensor: Tensor| {
            start += tensor.elem_count();
            (start - tensor.elem_count(), tensor)
        };
        let left = gradients.into_iter().map(of).collect();
        Self { communicator, left, in_flight: VecDeque::new() }
    }

    /// As [`ReduceScatterQueue::send_from`].
    pub(super) fn send_from(&mut self, from: usize) -> Result<()> {
        while let Some((_, tensor)) = self.left.pop_if(|(start, _)| *start >= from) {
            // The communication needs memory of its own: all gradients share one buffer.
            let copy =
                concatenated(slice::from_ref(&tensor), tensor.elem_count(), tensor.device())?;
            let pending = self.communicator.all_reduce_tensor(copy)?;
            self.in_flight.push_back((pending, tensor));
            if self.in_flight.len() >= IN_FLIGHT {
                self.wait_one()?;
            }
        }
        Ok(())
    }

    fn wait_one(&mut self) -> Result<()> {
        let Some((pending, tensor)) = self.in_flight.pop_front() else { return Ok(()) };
        let sums = pending.wait()?;
        Ok(memory::overwrite(&tensor, &sums)?)
    }

    /// As [`ReduceScatterQueue::wait_all`].
    pub(super) fn wait_all(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.wait_one()?;
        }
        Ok(())
    }
}
