//! Tensor parallelism for inference (Shoeybi et al., Megatron-LM, 2019).
//!
//! The query, key, value, gate and up projections are column-parallel, so that a rank has whole heads; the output and
//! down projections are row-parallel, followed by an all-reduce. Embedding and LM head are vocabulary-parallel. The
//! residual stream is replicated bit-identically, so that all ranks sample the same tokens.

mod bytes;
mod shard;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;

use candle_core::{DType, Tensor};
use embodied_r_dist::Communicator;
use embodied_r_kernels::memory;
use rayon::ThreadPoolBuilder;

use crate::error::{Result, TensorContext};
pub use bytes::ShardBytes;
pub(crate) use shard::{Shard, TensorSlice};

const OP: &str = "tensor_parallel";

/// A tensor-parallel group, seen from one rank. A clone is the same rank.
#[derive(Debug, Clone, Default)]
pub struct TensorParallel {
    /// `None` for a single rank.
    communicator: Option<Communicator>,
}

impl TensorParallel {
    /// A single rank with the whole model, without communication.
    #[must_use]
    pub fn single_rank() -> Self {
        Self::default()
    }

    /// The ranks of `communicator`, each with a shard.
    #[must_use]
    pub fn new(communicator: Communicator) -> Self {
        Self { communicator: (communicator.world_size() > 1).then_some(communicator) }
    }

    /// Runs `work` on `ranks` threads of this process, one rank each. Every rank has its own thread pool: ranks block
    /// on each other, which would deadlock in a shared one.
    ///
    /// # Errors
    /// The loopback interface or threads are unavailable; [`crate::Error::Distributed`] if a rank fails.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn on_threads<R: Send>(ranks: usize, work: impl Fn(&Self) -> R + Sync) -> Result<Vec<R>> {
        let of_one = |communicator: Communicator| -> Result<R> {
            let pool = ThreadPoolBuilder::new().num_threads(1).build();
            let pool = pool.map_err(|error| embodied_r_dist::Error::System {
                what: "start a rank's thread",
                source: io::Error::other(error),
            })?;
            let done = pool.install(|| work(&Self::new(communicator.clone())));
            communicator.finish()?;
            Ok(done)
        };
        Communicator::on_threads(ranks, of_one)?.into_iter().collect()
    }

    /// The number of ranks.
    #[must_use]
    pub fn world_size(&self) -> usize {
        self.communicator.as_ref().map_or(1, Communicator::world_size)
    }

    /// This rank's index, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.communicator.as_ref().map_or(0, Communicator::rank)
    }

    /// Whether this rank holds the whole model.
    #[must_use]
    pub fn is_single_rank(&self) -> bool {
        self.communicator.is_none()
    }

    /// Whether this is rank 0.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Sends a heartbeat.
    pub fn heartbeat(&self) {
        if let Some(communicator) = &self.communicator {
            communicator.heartbeat();
        }
    }

    /// Broadcasts bytes from rank 0; the argument of other ranks is ignored.
    ///
    /// # Errors
    /// [`crate::Error::Distributed`] if a rank fails.
    pub fn broadcast_bytes(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        match &self.communicator {
            None => Ok(bytes),
            Some(communicator) => Ok(communicator.broadcast_bytes(bytes, 0)?.wait()?),
        }
    }

    /// Broadcasts matrices that are distributed round-robin: rank `n % world_size` owns the `n`th. Each argument is a
    /// shape and, on the owner, the matrix.
    ///
    /// # Errors
    /// [`crate::Error::Distributed`] if a rank fails or has a matrix of another shape.
    pub fn broadcast_matrices(
        &self,
        matrices: Vec<((usize, usize), Option<Tensor>)>,
    ) -> Result<Vec<Tensor>> {
        let Some(communicator) = &self.communicator else {
            return Ok(matrices.into_iter().filter_map(|(_, matrix)| matrix).collect());
        };
        // All broadcasts are started before the first is awaited.
        let pending = matrices.into_iter().enumerate().map(|(index, (shape, matrix))| {
            let values = match &matrix {
                Some(matrix) => memory::floats(matrix, OP)?.to_vec(),
                None => vec![0.0; shape.0 * shape.1],
            };
            Ok((shape, communicator.broadcast(values, index % self.world_size())?))
        });
        let pending = pending.collect::<Result<Vec<_>>>()?;
        pending
            .into_iter()
            .map(|(shape, values)| Ok(memory::tensor(values.wait()?, shape)?))
            .collect()
    }

    /// All-reduce (sum), on the device and in the dtype of `part`. An f32 `part` is reduced in place.
    ///
    /// # Shapes
    /// The same on all ranks.
    pub(crate) fn all_reduce(&self, part: Tensor) -> Result<Tensor> {
        let Some(communicator) = &self.communicator else { return Ok(part) };
        // Reductions are f32 in every precision and rounded once.
        let dtype = part.dtype();
        let part = memory::to_dtype(&part, DType::F32)?;
        let sum = communicator.all_reduce_tensor(part)?.wait()?;
        Ok(memory::to_dtype(&sum, dtype)?)
    }

    /// All-gathers the columns of all ranks, on the device of `part`; `columns` are each rank's column ranges.
    ///
    /// # Shapes
    /// `part` (rows, this rank's columns), in f32; gives (rows, all columns).
    pub(crate) fn all_gather_columns(
        &self,
        part: Tensor,
        columns: &[Range<usize>],
    ) -> Result<Tensor> {
        const WHAT: &str = "all-gather columns";
        let Some(communicator) = &self.communicator else { return Ok(part) };
        let (rows, width) = part.dims2().context(WHAT)?;
        let widest = columns.iter().map(ExactSizeIterator::len).max().unwrap_or_default();
        if rows == 0 {
            let whole = columns.last().map_or(0, |columns| columns.end);
            return Ok(memory::zeros(&[0, whole], part.device())?);
        }
        // Pad to equal sizes for the all-gather.
        let padded = part.pad_with_zeros(1, 0, widest.saturating_sub(width)).context(WHAT)?;
        let all = communicator.all_gather_tensor(padded)?.wait()?;
        let all = all.reshape((columns.len(), rows, widest)).context(WHAT)?;
        let of_rank = |(rank, columns): (usize, &Range<usize>)| {
            all.get(rank).and_then(|part| part.narrow(1, 0, columns.len()))
        };
        let parts = columns.iter().enumerate().map(of_rank).collect::<Result<Vec<_>, _>>();
        parts.and_then(|parts| Tensor::cat(&parts, 1)).context(WHAT)
    }
}
