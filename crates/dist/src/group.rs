//! Collectives over a [`Link`]: call matching, chunking and reductions.

use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::memory::StreamEvent;

use crate::element::{Element, reduce};
use crate::error::Result;
use crate::failure::{FailureCause, FailureReport};
use crate::link::{DirectCollective, Link, Polling};
use crate::operation::{Call, Operation, Reduce};
use crate::rank_state::{RankState, aborted};
use crate::traffic::Counters;

/// The most bytes that a rank sends, or receives from all ranks, in one exchange. Bounds the buffers, stays far below
/// backend limits, and keeps a chunk in cache while it is reduced.
const CHUNK: usize = 4 << 20;
/// Up to this many bytes, an all-reduce gathers everything and reduces locally: one exchange instead of two.
const SMALL: usize = 16 << 10;

/// A group of ranks, as the communication thread sees it.
pub(crate) struct Group {
    pub(crate) link: Box<dyn Link>,
    pub(crate) rank_state: Arc<RankState>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hosts: Vec<String>,
    /// This rank's index within the group.
    pub(crate) rank: usize,
    /// The world rank of the group's first member.
    pub(crate) first: usize,
    pub(crate) world_size: usize,
    /// The operation that traffic is counted for.
    pub(crate) operation: Operation,
    /// This rank's subgroup, after a split.
    pub(crate) subgroup: Option<Box<Group>>,
}

impl Group {
    /// Closes the links.
    pub(crate) fn close(self) {
        if let Some(part) = self.subgroup {
            part.close();
        }
        self.link.close();
    }

    /// Waits until every rank has entered a call and returns their calls; aborts the job if they differ.
    pub(crate) fn agree(&mut self, call: Call) -> Result<Vec<Call>> {
        self.operation = call.operation;
        self.counters.call(call.operation);
        let mut all = vec![0; Call::SIZE * self.world_size];
        self.gather(&call.to_bytes(), &mut all, Polling::Relaxed)?;
        let calls: Option<Vec<_>> = all.chunks_exact(Call::SIZE).map(Call::from_bytes).collect();
        let calls = calls.unwrap_or_default();
        // All ranks find the same mismatch, because all compare with rank 0's call.
        let odd = calls.iter().position(|other| !other.agrees_with(&calls[0]));
        match odd {
            None => Ok(calls),
            Some(rank) => Err(self.disagree(rank, calls[rank], calls[0])),
        }
    }

    fn disagree(&self, rank: usize, here: Call, rank_0: Call) -> crate::Error {
        let failure = FailureReport {
            rank: self.first + rank,
            host: self.hosts.get(rank).cloned().unwrap_or_default(),
            phase: self.rank_state.status().phase,
            operation: Some(here),
            waited: std::time::Duration::ZERO,
            cause: FailureCause::Mismatch { here, rank_0 },
        };
        self.rank_state.abort(failure.clone());
        aborted(&failure)
    }

    fn gather(&mut self, mine: &[u8], all: &mut [u8], polling: Polling) -> Result<()> {
        self.counters.sent(self.operation, mine.len() * (self.world_size - 1));
        self.link.all_gather(mine, all, polling)?;
        self.rank_state.data_moved();
        Ok(())
    }

    fn swap(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()> {
        let others = sent.len() / self.world_size * (self.world_size - 1);
        self.counters.sent(self.operation, others);
        self.link.all_to_all(sent, received)?;
        self.rank_state.data_moved();
        Ok(())
    }

    /// All-reduces `values`, of equal length on all ranks, in place.
    pub(crate) fn all_reduce<T: Element>(&mut self, values: &mut [T], how: Reduce) -> Result<()> {
        if size_of_val(values) <= SMALL {
            let mut all = vec![T::zeroed(); values.len() * self.world_size];
            let mine = bytemuck::cast_slice(values);
            self.gather(mine, bytemuck::cast_slice_mut(&mut all), Polling::Eager)?;
            reduce(&all, values, how);
            return Ok(());
        }
        values
            .chunks_mut(CHUNK / size_of::<T>())
            .try_for_each(|piece| self.reduce_piece(piece, how))
    }

    fn reduce_piece<T: Element>(&mut self, piece: &mut [T], how: Reduce) -> Result<()> {
        if piece.len().is_multiple_of(self.world_size) {
            return self.reduce_parts(piece, how);
        }
        let mut padded = piece.to_vec();
        padded.resize(piece.len().next_multiple_of(self.world_size), T::zeroed());
        self.reduce_parts(&mut padded, how)?;
        piece.copy_from_slice(&padded[..piece.len()]);
        Ok(())
    }

    /// All-reduce as reduce-scatter and all-gather: every rank reduces one of the equal chunks of `values`.
    fn reduce_parts<T: Element>(&mut self, values: &mut [T], how: Reduce) -> Result<()> {
        let mut received = vec![T::zeroed(); values.len()];
        self.swap(bytemuck::cast_slice(values), bytemuck::cast_slice_mut(&mut received))?;
        let mut mine = vec![T::zeroed(); values.len() / self.world_size];
        reduce(&received, &mut mine, how);
        let all = bytemuck::cast_slice_mut(values);
        self.gather(bytemuck::cast_slice(&mine), all, Polling::Eager)
    }

    /// This rank's chunk of the sums of `values`, whose length is a multiple of the number of ranks.
    pub(crate) fn reduce_scatter<T: Element>(&mut self, values: &[T]) -> Result<Vec<T>> {
        let part = values.len() / self.world_size;
        let step = (CHUNK / size_of::<T>() / self.world_size).max(1);
        let mut sums = vec![T::zeroed(); part];
        let mut from = 0;
        while from < part {
            let length = step.min(part - from);
            let parts = values.chunks_exact(part).flat_map(|part| &part[from..from + length]);
            let sent: Vec<T> = parts.copied().collect();
            let mut received = vec![T::zeroed(); sent.len()];
            self.swap(bytemuck::cast_slice(&sent), bytemuck::cast_slice_mut(&mut received))?;
            reduce(&received, &mut sums[from..from + length], Reduce::Sum);
            from += length;
        }
        Ok(sums)
    }

    /// `mine` of all ranks, of equal length, concatenated.
    pub(crate) fn all_gather<T: Element>(&mut self, mine: &[T]) -> Result<Vec<T>> {
        let mut all = vec![T::zeroed(); mine.len() * self.world_size];
        let step = (CHUNK / size_of::<T>() / self.world_size).max(1);
        if mine.len() <= step {
            let all = bytemuck::cast_slice_mut(&mut all);
            self.gather(bytemuck::cast_slice(mine), all, Polling::Eager)?;
        } else {
            self.gather_pieces(mine, &mut all, step)?;
        }
        Ok(all)
    }

    fn gather_pieces<T: Element>(&mut self, mine: &[T], all: &mut [T], step: usize) -> Result<()> {
        for (at, piece) in mine.chunks(step).enumerate() {
            let mut pieces = vec![T::zeroed(); piece.len() * self.world_size];
            let received = bytemuck::cast_slice_mut(&mut pieces);
            self.gather(bytemuck::cast_slice(piece), received, Polling::Eager)?;
            let ranks = all.chunks_exact_mut(mine.len()).zip(pieces.chunks_exact(piece.len()));
            for (rank, piece) in ranks {
                rank[at * step..][..piece.len()].copy_from_slice(piece);
            }
        }
        Ok(())
    }

    /// A collective from one tensor to another by the backend itself, ordered after `mark`.
    pub(crate) fn direct(
        &mut self,
        what: DirectCollective,
        send: &Tensor,
        receive: &Tensor,
        mark: &StreamEvent,
    ) -> Result<()> {
        // The bytes that a ring algorithm sends.
        let whole = size_of::<f32>() * send.elem_count().max(receive.elem_count());
        let rounds = if what == DirectCollective::Sum { 2 } else { 1 };
        let others = self.world_size - 1;
        self.counters.sent(self.operation, rounds * whole * others / self.world_size);
        self.link.direct(what, send, receive, mark)
    }

    /// Broadcasts `data` of rank `root`, in place.
    pub(crate) fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()> {
        for piece in data.chunks_mut(CHUNK) {
            if self.rank == root {
                self.counters.sent(self.operation, piece.len() * (self.world_size - 1));
            }
            self.link.broadcast(piece, root)?;
            self.rank_state.data_moved();
        }
        Ok(())
    }

    /// All-gathers bytes; `lengths` has every rank's length.
    pub(crate) fn all_gather_bytes(
        &mut self,
        mine: &[u8],
        lengths: &[u64],
    ) -> Result<Vec<Vec<u8>>> {
        let mut all: Vec<_> = lengths.iter().map(|&length| vec![0; length as usize]).collect();
        let longest = all.iter().map(Vec::len).max().unwrap_or(0);
        let step = (CHUNK / self.world_size).max(1);
        for from in (0..longest).step_by(step) {
            let width = step.min(longest - from);
            let mut sent = piece(mine, from, width).to_vec();
            sent.resize(width, 0);
            let mut received = vec![0; width * self.world_size];
            self.gather(&sent, &mut received, Polling::Eager)?;
            put_pieces(&mut all, &received, from, width);
        }
        Ok(all)
    }

    /// Exchanges one piece with every rank; the longest piece of any rank has `longest` bytes.
    pub(crate) fn all_to_all_bytes(
        &mut self,
        pieces: &[Vec<u8>],
        longest: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let lengths: Vec<u64> = pieces.iter().map(|piece| piece.len() as u64).collect();
        let mut theirs = vec![0u64; self.world_size];
        self.swap(bytemuck::cast_slice(&lengths), bytemuck::cast_slice_mut(&mut theirs))?;
        let mut all: Vec<_> = theirs.iter().map(|&length| vec![0; length as usize]).collect();
        let step = (CHUNK / self.world_size).max(1);
        for from in (0..longest).step_by(step) {
            let width = step.min(longest - from);
            let mut sent = vec![0; width * self.world_size];
            for (padded, whole) in sent.chunks_exact_mut(width).zip(pieces) {
                let piece = piece(whole, from, width);
                padded[..piece.len()].copy_from_slice(piece);
            }
            let mut received = vec![0; sent.len()];
            self.swap(&sent, &mut received)?;
            put_pieces(&mut all, &received, from, width);
        }
        Ok(all)
    }
}

/// The bytes of `whole` within the `width` bytes from `from`.
fn piece(whole: &[u8], from: usize, width: usize) -> &[u8] {
    let rest = whole.get(from..).unwrap_or_default();
    &rest[..width.min(rest.len())]
}

/// Copies every rank's padded piece to its offset, without the padding.
fn put_pieces(all: &mut [Vec<u8>], received: &[u8], from: usize, width: usize) {
    for (whole, padded) in all.iter_mut().zip(received.chunks_exact(width)) {
        if let Some(rest) = whole.get_mut(from..) {
            let length = width.min(rest.len());
            rest[..length].copy_from_slice(&padded[..length]);
        }
    }
}
