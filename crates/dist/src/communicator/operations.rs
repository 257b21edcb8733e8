//! The collectives.

use super::Communicator;
use crate::error::{Error, Result};
use crate::operation::{Operation, Reduce};
use crate::pending::Pending;

/// # Collectives
///
/// Buffers are given away and come back as results. All ranks make the same calls in the same order; each
/// fails with [`Error::Lost`] once a rank ended the job, and with [`Error::Finished`] after
/// [`Communicator::finish`]. Sums and the like are made in the order of the ranks, so that the bits of a
/// result are the same on every rank, and depend on nothing but the data and the number of ranks.
impl Communicator {
    /// Returns when every rank has called it.
    ///
    /// # Errors
    ///
    /// As of all collectives.
    pub fn barrier(&self) -> Result<()> {
        self.begin(self.call(Operation::Barrier, 0, 0), (), |()| (), |_, _, ()| Ok(()))?.wait()
    }

    /// Number by number the sum, the greatest or the least over all ranks.
    ///
    /// # Shapes
    ///
    /// `(n)` on every rank gives `(n)` on every rank.
    ///
    /// # Errors
    ///
    /// As of all collectives.
    pub fn all_reduce(&self, numbers: Vec<f32>, how: Reduce) -> Result<Pending<Vec<f32>>> {
        let call = self.call(Operation::AllReduce(how), numbers.len(), 0);
        self.begin(
            call,
            numbers,
            |numbers| numbers,
            move |group, _, mut numbers| {
                group.all_reduce(&mut numbers, how)?;
                Ok(numbers)
            },
        )
    }

    /// [`Communicator::all_reduce`] in double precision, for counts and losses.
    ///
    /// # Errors
    ///
    /// As of all collectives.
    pub fn all_reduce_f64(&self, numbers: Vec<f64>, how: Reduce) -> Result<Pending<Vec<f64>>> {
        let call = self.call(Operation::AllReduceF64(how), numbers.len(), 0);
        self.begin(
            call,
            numbers,
            |numbers| numbers,
            move |group, _, mut numbers| {
                group.all_reduce(&mut numbers, how)?;
                Ok(numbers)
            },
        )
    }

    /// This rank's part of the sums over all ranks: the `rank`th of equal parts.
    ///
    /// # Shapes
    ///
    /// `(world_size × n)` on every rank gives `(n)`.
    ///
    /// # Errors
    ///
    /// The length is not a multiple of the number of ranks, and as of all collectives.
    pub fn reduce_scatter(&self, numbers: Vec<f32>) -> Result<Pending<Vec<f32>>> {
        let operation = Operation::ReduceScatter;
        self.part_of(operation, numbers.len())?;
        let call = self.call(operation, numbers.len(), 0);
        self.begin(
            call,
            numbers,
            |numbers| numbers,
            |group, _, numbers| group.reduce_scatter(&numbers),
        )
    }

    /// The numbers of all ranks, end to end.
    ///
    /// # Shapes
    ///
    /// `(n)` on every rank gives `(world_size × n)`.
    ///
    /// # Errors
    ///
    /// As of all collectives.
    pub fn all_gather(&self, numbers: Vec<f32>) -> Result<Pending<Vec<f32>>> {
        let call = self.call(Operation::AllGather, numbers.len(), 0);
        self.begin(call, numbers, |numbers| numbers, |group, _, numbers| group.all_gather(&numbers))
    }

    /// The numbers of rank `root`. The others give as many, which are not looked at.
    ///
    /// # Shapes
    ///
    /// `(n)` on every rank gives `(n)`.
    ///
    /// # Errors
    ///
    /// There is no rank `root`, and as of all collectives.
    pub fn broadcast(&self, numbers: Vec<f32>, root: usize) -> Result<Pending<Vec<f32>>> {
        let operation = Operation::Broadcast;
        self.check_root(operation, root)?;
        let call = self.call(operation, numbers.len(), root);
        self.begin(
            call,
            numbers,
            |numbers| numbers,
            move |group, _, mut numbers| {
                group.broadcast(bytemuck::cast_slice_mut(&mut numbers), root)?;
                Ok(numbers)
            },
        )
    }

    /// The bytes of every rank, by rank; the lengths may differ.
    ///
    /// # Errors
    ///
    /// As of all collectives.
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

    /// Sends `pieces[n]` to rank `n`; gives what every rank sent here, by rank. Lengths may differ, but
    /// what goes over the wire is as if all pieces were as long as the longest.
    ///
    /// # Errors
    ///
    /// There is not a piece for every rank, and as of all collectives.
    pub fn all_to_all_bytes(&self, pieces: Vec<Vec<u8>>) -> Result<Pending<Vec<Vec<u8>>>> {
        let (operation, world_size) = (Operation::AllToAllBytes, self.world_size());
        if pieces.len() != world_size {
            let why = "there must be a piece for every rank";
            return Err(Error::Length { operation, length: pieces.len(), world_size, why });
        }
        let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
        self.begin(
            self.call(operation, longest, 0),
            pieces,
            |pieces| pieces,
            |group, calls, pieces| {
                let longest = calls.iter().map(|call| call.length).max().unwrap_or(0);
                group.all_to_all_bytes(&pieces, longest as usize)
            },
        )
    }

    /// The bytes of rank `root`. What other ranks give is not looked at, and may be nothing.
    ///
    /// # Errors
    ///
    /// There is no rank `root`, and as of all collectives.
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

    /// The length of a rank's part of so many numbers.
    pub(super) fn part_of(&self, operation: Operation, length: usize) -> Result<usize> {
        let world_size = self.world_size();
        if length.is_multiple_of(world_size) {
            return Ok(length / world_size);
        }
        let why = "the length is not a multiple of the number of ranks";
        Err(Error::Length { operation, length, world_size, why })
    }
}
