//! Collectives over a [`Link`]: the agreement on what is called, pieces of bounded size, and reductions.

use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::memory::Mark;

use crate::error::Result;
use crate::link::{Direct, Link, Others};
use crate::number::{Number, reduce};
use crate::operation::{Call, Operation, Reduce};
use crate::traffic::Counters;
use crate::verdict::{Verdict, Why};
use crate::watch::{Watch, lost};

/// The most bytes that a rank sends, or receives from one other, at once: bounds the memory beside the
/// data, stays far below a backend's limits, and is summed while it is in a cache.
const PIECE: usize = 4 << 20;
/// Up to so many bytes all ranks get everything and reduce it themselves, which takes one exchange
/// where two move less.
const SMALL: usize = 16 << 10;

/// All ranks, as the thread that moves data sees them.
pub(crate) struct Group {
    pub(crate) link: Box<dyn Link>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hosts: Vec<String>,
    /// This rank's number among them.
    pub(crate) rank: usize,
    /// The number that the first of them has in the job.
    pub(crate) first: usize,
    pub(crate) world_size: usize,
    /// Whose bytes are counted.
    pub(crate) operation: Operation,
    /// The part of them that this rank belongs to, if they are divided.
    pub(crate) part: Option<Box<Group>>,
}

impl Group {
    /// Ends the connections.
    pub(crate) fn close(self) {
        if let Some(part) = self.part {
            part.close();
        }
        self.link.close();
    }

    /// Waits until every rank is in a call, and gives their calls; a verdict where they differ.
    pub(crate) fn agree(&mut self, call: Call) -> Result<Vec<Call>> {
        self.operation = call.operation;
        self.counters.call(call.operation);
        let mut all = vec![0; Call::SIZE * self.world_size];
        self.gather(&call.to_bytes(), &mut all, Others::MayBeLate)?;
        let calls: Option<Vec<_>> = all.chunks_exact(Call::SIZE).map(Call::from_bytes).collect();
        let calls = calls.unwrap_or_default();
        // Every rank finds the same one, held against rank 0's.
        let odd = calls.iter().position(|other| !other.agrees_with(&calls[0]));
        match odd {
            None => Ok(calls),
            Some(rank) => Err(self.disagree(rank, calls[rank], calls[0])),
        }
    }

    fn disagree(&self, rank: usize, here: Call, rank_0: Call) -> crate::Error {
        let verdict = Verdict {
            rank: self.first + rank,
            host: self.hosts.get(rank).cloned().unwrap_or_default(),
            phase: self.watch.signs().phase,
            operation: Some(here),
            waited: std::time::Duration::ZERO,
            why: Why::Mismatch { here, rank_0 },
        };
        self.watch.condemn(verdict.clone());
        lost(&verdict)
    }

    fn gather(&mut self, mine: &[u8], all: &mut [u8], others: Others) -> Result<()> {
        self.counters.sent(self.operation, mine.len() * (self.world_size - 1));
        self.link.all_gather(mine, all, others)?;
        self.watch.data_moved();
        Ok(())
    }

    fn swap(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()> {
        let others = sent.len() / self.world_size * (self.world_size - 1);
        self.counters.sent(self.operation, others);
        self.link.all_to_all(sent, received)?;
        self.watch.data_moved();
        Ok(())
    }

    /// Reduces `numbers` of all ranks, of equal lengths, in place.
    pub(crate) fn all_reduce<T: Number>(&mut self, numbers: &mut [T], how: Reduce) -> Result<()> {
        if size_of_val(numbers) <= SMALL {
            let mut all = vec![T::zeroed(); numbers.len() * self.world_size];
            let (mine, others) = (bytemuck::cast_slice(numbers), Others::AreHere);
            self.gather(mine, bytemuck::cast_slice_mut(&mut all), others)?;
            reduce(&all, numbers, how);
            return Ok(());
        }
        numbers
            .chunks_mut(PIECE / size_of::<T>())
            .try_for_each(|piece| self.reduce_piece(piece, how))
    }

    fn reduce_piece<T: Number>(&mut self, piece: &mut [T], how: Reduce) -> Result<()> {
        if piece.len().is_multiple_of(self.world_size) {
            return self.reduce_parts(piece, how);
        }
        let mut padded = piece.to_vec();
        padded.resize(piece.len().next_multiple_of(self.world_size), T::zeroed());
        self.reduce_parts(&mut padded, how)?;
        piece.copy_from_slice(&padded[..piece.len()]);
        Ok(())
    }

    /// Every rank reduces one of the equal parts of `numbers`, and gives it to all.
    fn reduce_parts<T: Number>(&mut self, numbers: &mut [T], how: Reduce) -> Result<()> {
        let mut received = vec![T::zeroed(); numbers.len()];
        self.swap(bytemuck::cast_slice(numbers), bytemuck::cast_slice_mut(&mut received))?;
        let mut mine = vec![T::zeroed(); numbers.len() / self.world_size];
        reduce(&received, &mut mine, how);
        let all = bytemuck::cast_slice_mut(numbers);
        self.gather(bytemuck::cast_slice(&mine), all, Others::AreHere)
    }

    /// This rank's part of the sums of `numbers`, whose length is a multiple of the number of ranks.
    pub(crate) fn reduce_scatter<T: Number>(&mut self, numbers: &[T]) -> Result<Vec<T>> {
        let part = numbers.len() / self.world_size;
        let step = (PIECE / size_of::<T>() / self.world_size).max(1);
        let mut sums = vec![T::zeroed(); part];
        let mut from = 0;
        while from < part {
            let length = step.min(part - from);
            let parts = numbers.chunks_exact(part).flat_map(|part| &part[from..from + length]);
            let sent: Vec<T> = parts.copied().collect();
            let mut received = vec![T::zeroed(); sent.len()];
            self.swap(bytemuck::cast_slice(&sent), bytemuck::cast_slice_mut(&mut received))?;
            reduce(&received, &mut sums[from..from + length], Reduce::Sum);
            from += length;
        }
        Ok(sums)
    }

    /// `mine` of all ranks, of equal lengths, end to end.
    pub(crate) fn all_gather<T: Number>(&mut self, mine: &[T]) -> Result<Vec<T>> {
        let mut all = vec![T::zeroed(); mine.len() * self.world_size];
        let step = (PIECE / size_of::<T>() / self.world_size).max(1);
        if mine.len() <= step {
            let all = bytemuck::cast_slice_mut(&mut all);
            self.gather(bytemuck::cast_slice(mine), all, Others::AreHere)?;
        } else {
            self.gather_pieces(mine, &mut all, step)?;
        }
        Ok(all)
    }

    fn gather_pieces<T: Number>(&mut self, mine: &[T], all: &mut [T], step: usize) -> Result<()> {
        for (at, piece) in mine.chunks(step).enumerate() {
            let mut pieces = vec![T::zeroed(); piece.len() * self.world_size];
            let places = bytemuck::cast_slice_mut(&mut pieces);
            self.gather(bytemuck::cast_slice(piece), places, Others::AreHere)?;
            let ranks = all.chunks_exact_mut(mine.len()).zip(pieces.chunks_exact(piece.len()));
            for (rank, piece) in ranks {
                rank[at * step..][..piece.len()].copy_from_slice(piece);
            }
        }
        Ok(())
    }

    /// A collective from one tensor to another by the connection itself, behind what `mark` stands for.
    pub(crate) fn direct(
        &mut self,
        what: Direct,
        send: &Tensor,
        receive: &Tensor,
        mark: &Mark,
    ) -> Result<()> {
        // What a ring sends.
        let whole = size_of::<f32>() * send.elem_count().max(receive.elem_count());
        let rounds = if what == Direct::Sum { 2 } else { 1 };
        let others = self.world_size - 1;
        self.counters.sent(self.operation, rounds * whole * others / self.world_size);
        self.link.direct(what, send, receive, mark)
    }

    /// `data` of rank `root`, in place.
    pub(crate) fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()> {
        for piece in data.chunks_mut(PIECE) {
            if self.rank == root {
                self.counters.sent(self.operation, piece.len() * (self.world_size - 1));
            }
            self.link.broadcast(piece, root)?;
            self.watch.data_moved();
        }
        Ok(())
    }

    /// Bytes of every rank, whose lengths are `lengths`.
    pub(crate) fn all_gather_bytes(
        &mut self,
        mine: &[u8],
        lengths: &[u64],
    ) -> Result<Vec<Vec<u8>>> {
        let mut all: Vec<_> = lengths.iter().map(|&length| vec![0; length as usize]).collect();
        let longest = all.iter().map(Vec::len).max().unwrap_or(0);
        let step = (PIECE / self.world_size).max(1);
        for from in (0..longest).step_by(step) {
            let width = step.min(longest - from);
            let mut sent = piece(mine, from, width).to_vec();
            sent.resize(width, 0);
            let mut received = vec![0; width * self.world_size];
            self.gather(&sent, &mut received, Others::AreHere)?;
            put_pieces(&mut all, &received, from, width);
        }
        Ok(all)
    }

    /// Pieces for every rank against pieces from every rank, the longest of which has `longest` bytes.
    pub(crate) fn all_to_all_bytes(
        &mut self,
        pieces: &[Vec<u8>],
        longest: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let lengths: Vec<u64> = pieces.iter().map(|piece| piece.len() as u64).collect();
        let mut theirs = vec![0u64; self.world_size];
        self.swap(bytemuck::cast_slice(&lengths), bytemuck::cast_slice_mut(&mut theirs))?;
        let mut all: Vec<_> = theirs.iter().map(|&length| vec![0; length as usize]).collect();
        let step = (PIECE / self.world_size).max(1);
        for from in (0..longest).step_by(step) {
            let width = step.min(longest - from);
            let mut sent = vec![0; width * self.world_size];
            for (place, whole) in sent.chunks_exact_mut(width).zip(pieces) {
                let piece = piece(whole, from, width);
                place[..piece.len()].copy_from_slice(piece);
            }
            let mut received = vec![0; sent.len()];
            self.swap(&sent, &mut received)?;
            put_pieces(&mut all, &received, from, width);
        }
        Ok(all)
    }
}

/// What of `whole` lies in the `width` bytes from `from`.
fn piece(whole: &[u8], from: usize, width: usize) -> &[u8] {
    let rest = whole.get(from..).unwrap_or_default();
    &rest[..width.min(rest.len())]
}

/// Puts padded pieces of every rank to their places.
fn put_pieces(all: &mut [Vec<u8>], received: &[u8], from: usize, width: usize) {
    for (whole, padded) in all.iter_mut().zip(received.chunks_exact(width)) {
        if let Some(rest) = whole.get_mut(from..) {
            let length = width.min(rest.len());
            rest[..length].copy_from_slice(&padded[..length]);
        }
    }
}
