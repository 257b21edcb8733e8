//! Gradients on their way to their sums over the ranks, while the backward makes others.
//!
//! A backward goes from the last layer to the first, and so do the buckets: in one order on all ranks, whatever they have
//! to compute, so that all of them make the same calls. The order changes no bit of a sum.

use std::collections::VecDeque;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_dist::{Communicator, Pending, Reduce};
use embodied_r_kernels::memory;

use super::sharded::{Bucket, Sharded};
use super::shards::{Segment, joined, view};
use crate::error::Result;

/// Buckets on their way at the same time: enough to keep the links busy, few enough to take little memory.
pub(super) const IN_FLIGHT: usize = 4;

/// The sums of the gradients over all ranks, as far as this rank owns them, in the place of its own gradients.
pub(super) struct Reduced {
    /// One for each parameter.
    pub(super) gradients: Vec<Tensor>,
    /// The norm over all ranks' parts.
    pub(super) norm: f64,
}

/// Buckets of which each rank gets a part.
pub(super) struct Reducing {
    sharded: Arc<Sharded>,
    gradients: Vec<Tensor>,
    /// Buckets that are not on their way yet: the first ones.
    left: usize,
    on_their_way: VecDeque<(Pending<Tensor>, Range<usize>)>,
}

impl Reducing {
    /// Begins with `gradients`, one for each parameter.
    pub(super) fn new(sharded: &Arc<Sharded>, gradients: Vec<Tensor>) -> Self {
        let (left, on_their_way) = (sharded.buckets.len(), VecDeque::new());
        Self { sharded: Arc::clone(sharded), gradients, left, on_their_way }
    }

    /// Sends the buckets in which nothing changes any more where that is so for all numbers from `from` on.
    pub(super) fn send_from(&mut self, from: usize) -> Result<()> {
        while let Some(last) = self.left.checked_sub(1) {
            let Sharded { communicator, layout, buckets } = &*self.sharded;
            let Bucket { whole, owned, .. } = &buckets[last];
            if whole.start < from {
                break;
            }
            self.left = last;
            let numbers = layout.gathered(whole, &self.gradients)?;
            let sums = communicator.reduce_scatter_tensor(numbers)?;
            self.on_their_way.push_back((sums, owned.clone()));
            if self.on_their_way.len() >= IN_FLIGHT {
                self.take_one()?;
            }
        }
        Ok(())
    }

    /// Waits for the bucket that was sent first.
    fn take_one(&mut self) -> Result<()> {
        let Some((pending, owned)) = self.on_their_way.pop_front() else { return Ok(()) };
        let sums = pending.wait()?;
        self.sharded.layout.scatter(&owned, &sums, &self.gradients)
    }

    /// Waits for all that were sent.
    pub(super) fn take_all(&mut self) -> Result<()> {
        while !self.on_their_way.is_empty() {
            self.take_one()?;
        }
        Ok(())
    }

    /// The sums, with their norm over all ranks.
    pub(super) fn into_sums(self) -> Result<Reduced> {
        let mut squares = 0.0;
        for Segment { tensor, numbers } in self.sharded.buckets.iter().flat_map(|b| &b.segments) {
            squares += memory::square_sum_of(&view(&self.gradients[*tensor], numbers)?)?;
        }
        let communicator = &self.sharded.communicator;
        let sums = communicator.all_reduce_f64(vec![squares], Reduce::Sum)?.wait()?;
        let norm = sums.first().copied().unwrap_or(f64::NAN).sqrt();
        Ok(Reduced { gradients: self.gradients, norm })
    }
}

/// Gradients of which every rank gets all, tensor by tensor, in the place of its own.
pub(super) struct Summing {
    communicator: Communicator,
    /// Those that are not on their way yet, with the number at which each begins among all.
    left: Vec<(usize, Tensor)>,
    on_their_way: VecDeque<(Pending<Tensor>, Tensor)>,
}

impl Summing {
    pub(super) fn new(communicator: Communicator, gradients: Vec<Tensor>) -> Self {
        let mut start = 0;
        let of = |tensor: Tensor| {
            start += tensor.elem_count();
            (start - tensor.elem_count(), tensor)
        };
        let left = gradients.into_iter().map(of).collect();
        Self { communicator, left, on_their_way: VecDeque::new() }
    }

    /// As [`Reducing::send_from`].
    pub(super) fn send_from(&mut self, from: usize) -> Result<()> {
        while let Some((_, tensor)) = self.left.pop_if(|(start, _)| *start >= from) {
            // Its own memory is in use: that of all gradients is one buffer.
            let copy = joined(slice::from_ref(&tensor), tensor.elem_count(), tensor.device())?;
            let pending = self.communicator.sum_tensor(copy)?;
            self.on_their_way.push_back((pending, tensor));
            if self.on_their_way.len() >= IN_FLIGHT {
                self.take_one()?;
            }
        }
        Ok(())
    }

    fn take_one(&mut self) -> Result<()> {
        let Some((pending, tensor)) = self.on_their_way.pop_front() else { return Ok(()) };
        let sums = pending.wait()?;
        Ok(memory::overwrite(&tensor, &sums)?)
    }

    /// As [`Reducing::take_all`].
    pub(super) fn take_all(&mut self) -> Result<()> {
        while !self.on_their_way.is_empty() {
            self.take_one()?;
        }
        Ok(())
    }
}
