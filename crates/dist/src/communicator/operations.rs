//! The collectives.

use super::Communicator;
use crate::error::{Error, Result};
use crate::operation::{Operation, Reduce};
use crate::pending::Pending;

/// # Collectives
///
/// Buffers are moved in and returned as results. All ranks make the same calls in the same order. A call fails with
/// [`Error::RankFailed`] after a rank failed, and with [`Error::Finished`] after [`Communicator::finish`]. Reductions
/// accumulate in rank order, so a result has the same bits on every rank and depends only on the data and the number of
/// ranks.
impl Communicator {
    /// Returns when every rank has entered it.
    ///
    /// # Errors
    ///
    /// As for all collectives.
    pub fn barrier(&self) -> Result<()> {
        self.begin(self.call(Operation::Barrier, 0, 0), (), |()| (), |_, _, ()| Ok(()))?.wait()
    }

    /// Element-wise all-reduce.
    ///
    /// # Shapes
    ///
    /// `(n)` on every rank gives `(n)` on every rank.
    ///
    /// # Errors
    ///
    /// As for all collectives.
    pub fn all_reduce(&self, values: Vec<f32>, how: Reduce) -> Result<Pending<Vec<f32>>> {
        let call = self.call(Operation::AllReduce(how), values.len(), 0);
        self.begin(
            call,
            values,
            |values| values,
            move |group, _, mut values| {
                group.all_reduce(&mut values, how)?;
                Ok(values)
            },
        )
    }

    /// [`Communicator::all_reduce`] in double precision, for counts and losses.
    ///
    /// # Errors
    ///
    /// As for all collectives.
    pub fn all_reduce_f64(&self, values: Vec<f64>, how: Reduce) -> Result<Pending<Vec<f64>>> {
        let call = self.call(Operation::AllReduceF64(how), values.len(), 0);
        self.begin(
            call,
            values,
            |values| values,
            move |group, _, mut values| {
                group.all_reduce(&mut values, how)?;
                Ok(values)
            },
        )
    }

    /// Reduce-scatter: the `rank`th of the equal chunks of the sums over all ranks.
    ///
    /// # Shapes
    ///
    /// `(world_size × n)` on every rank gives `(n)`.
    ///
    /// # Errors
    ///
    /// The length is not a multiple of the number of ranks, and as for all collectives.
    pub fn reduce_scatter(&self, values: Vec<f32>) -> Result<Pending<Vec<f32>>> {
        let operation = Operation::ReduceScatter;
        self.part_of(operation, values.len())?;
        let call = self.call(operation, values.len(), 0);
        self.begin(call, values, |values| values, |group, _, values| group.reduce_scatter(&values))
    }

    /// All-gather: the values of all ranks, concatenated.
    ///
    /// # Shapes
    ///
    /// `(n)` on every rank gives `(world_size × n)`.
    ///
    /// # Errors
    ///
    /// As for all collectives.
    pub fn all_gather(&self, values: Vec<f32>) -> Result<Pending<Vec<f32>>> {
        let call = self.call(Operation::AllGather, values.len(), 0);
        self.begin(call, values, |values| values, |group, _, values| group.all_gather(&values))
    }

    /// Broadcasts the values of rank `root`. The other ranks pass a vector of the same length; its contents are
    /// ignored.
    ///
    /// # Shapes
    ///
    /// `(n)` on every rank gives `(n)`.
    ///
    /// # Errors
    ///
    /// There is no rank `root`, and as for all collectives.
    pub fn broadcast(&self, values: Vec<f32>, root: usize) -> Result<Pending<Vec<f32>>> {
        let operation = Operation::Broadcast;
        self.check_root(operation, root)?;
        let call = self.call(operation, values.len(), root);
        self.begin(
            call,
            values,
            |values| values,
            move |group, _, mut values| {
                group.broadcast(bytemuck::cast_slice_mut(&mut values), root)?;
                Ok(values)
            },
        )
    }

    /// All-gathers bytes, by rank; lengths may differ.
    ///
    /// # Errors
    ///
    /// As for all collectives.
    pub fn all_gather_bytes(&self, bytes: Vec<u8>) -> Result<Pending<Vec<Vec<u8>>>> {
        let call = self.call(Operation::AllGatherBytes, bytes.len(), 0);
        self.begin(
            call,
            bytes,
            |bytes| vec![bytes],
            |group, calls, bytes| {
                let lengths: Vec<_> = calls.iter().map(|call| call.length).collect();
                group.all_gather_bytes(&bytes, &lengths)
            },
        )
    }

    /// All-to-all: sends `chunks[n]` to rank `n` and returns what every rank sent here, by rank. Lengths may differ,
    /// but all chunks are padded to the longest on the wire.
    ///
    /// # Errors
    ///
    /// There is not one chunk per rank, and as for all collectives.
    pub fn all_to_all_bytes(&self, chunks: Vec<Vec<u8>>) -> Result<Pending<Vec<Vec<u8>>>> {
        let (operation, world_size) = (Operation::AllToAllBytes, self.world_size());
        if chunks.len() != world_size {
            let why = "expected one chunk per rank";
            return Err(Error::Length { operation, length: chunks.len(), world_size, why });
        }
        let longest = chunks.iter().map(Vec::len).max().unwrap_or(0);
        self.begin(
            self.call(operation, longest, 0),
            chunks,
            |chunks| chunks,
            |group, calls, chunks| {
                let longest = calls.iter().map(|call| call.length).max().unwrap_or(0);
                group.all_to_all_bytes(&chunks, longest as usize)
            },
        )
    }

    /// Broadcasts the bytes of rank `root`. The bytes of other ranks are ignored and may be empty.
    ///
    /// # Errors
    ///
    /// There is no rank `root`, and as for all collectives.
    pub fn broadcast_bytes(&self, bytes: Vec<u8>, root: usize) -> Result<Pending<Vec<u8>>> {
        let operation = Operation::BroadcastBytes;
        self.check_root(operation, root)?;
        let call = self.call(operation, bytes.len(), root);
        self.begin(
            call,
            bytes,
            |bytes| bytes,
            move |group, calls, mut bytes| {
                bytes.resize(calls[root].length as usize, 0);
                group.broadcast(&mut bytes, root)?;
                Ok(bytes)
            },
        )
    }

    fn check_root(&self, operation: Operation, root: usize) -> Result<()> {
        let world_size = self.world_size();
        if root < world_size { Ok(()) } else { Err(Error::Root { operation, root, world_size }) }
    }

    /// The length of each rank's chunk of `length` elements.
    pub(super) fn part_of(&self, operation: Operation, length: usize) -> Result<usize> {
        let world_size = self.world_size();
        if length.is_multiple_of(world_size) {
            return Ok(length / world_size);
        }
        let why = "the length is not a multiple of the number of ranks";
        Err(Error::Length { operation, length, world_size, why })
    }
}
