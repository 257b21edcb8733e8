//! A model whose matrices are split over ranks (Shoeybi et al., Megatron-LM, 2019).
//!
//! Queries, keys, values and the gated layer's first products are split by outputs, so that a rank has whole heads; the
//! two products behind them are split by inputs, and their results are summed over the ranks. Embedding and output layer
//! are split by tokens. Every rank has the whole residual stream, to the same bits, so that all draw the same tokens.

mod bytes;
mod split;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use candle_core::{DType, Tensor};
use embodied_r_dist::{Communicator, Options};
use embodied_r_kernels::memory;
use rayon::ThreadPoolBuilder;

use crate::error::{During, Result};
pub use bytes::PartBytes;
pub(crate) use bytes::block;
pub(crate) use split::{Slice, Split};

const OP: &str = "tensor_parallel";

/// The ranks that hold a model's parts, as one of them sees them. A clone is the same rank.
#[derive(Debug, Clone, Default)]
pub struct TensorParallel {
    /// Nothing for a rank that holds the whole model.
    communicator: Option<Communicator>,
}

impl TensorParallel {
    /// One rank that holds all: nothing is split, sent or copied.
    #[must_use]
    pub fn alone() -> Self {
        Self::default()
    }

    /// The ranks of `communicator`, each with a part.
    #[must_use]
    pub fn over(communicator: Communicator) -> Self {
        Self { communicator: (communicator.world_size() > 1).then_some(communicator) }
    }

    /// Does `work` on so many ranks of this process, each a thread with a pool of its own: ranks wait for each other, and
    /// in a common pool one would keep from work whom it waits for.
    ///
    /// # Errors
    /// The loopback cannot be used, or the system gives no thread; [`crate::Error::Ranks`] when a rank is lost.
    ///
    /// # Panics
    /// Where `work` does.
    pub fn on_threads<R: Send>(ranks: usize, work: impl Fn(&Self) -> R + Sync) -> Result<Vec<R>> {
        let of_one = |communicator: Communicator| -> Result<R> {
            let pool = ThreadPoolBuilder::new().num_threads(1).build();
            let pool = pool.map_err(|error| embodied_r_dist::Error::System {
                what: "start a rank's thread",
                source: io::Error::other(error),
            })?;
            let done = pool.install(|| work(&Self::over(communicator.clone())));
            communicator.finish()?;
            Ok(done)
        };
        let communicators = Communicator::threads(ranks, &Options::default())?;
        thread::scope(|scope| {
            let start = |communicator| scope.spawn(|| of_one(communicator));
            let threads: Vec<_> = communicators.into_iter().map(start).collect();
            let end = |thread: ScopedJoinHandle<'_, Result<R>>| {
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            threads.into_iter().map(end).collect()
        })
    }

    /// The ranks.
    #[must_use]
    pub fn size(&self) -> usize {
        self.communicator.as_ref().map_or(1, Communicator::world_size)
    }

    /// This one's number, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.communicator.as_ref().map_or(0, Communicator::rank)
    }

    /// Whether this rank holds the whole model.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.communicator.is_none()
    }

    /// Whether this rank speaks for all of them.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// A sign that this rank's work goes on.
    pub fn beat(&self) {
        if let Some(communicator) = &self.communicator {
            communicator.beat();
        }
    }

    /// The bytes of the first rank, on every rank; what others give is not looked at.
    ///
    /// # Errors
    /// [`crate::Error::Ranks`] when a rank is lost.
    pub fn of_first(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        match &self.communicator {
            None => Ok(bytes),
            Some(communicator) => Ok(communicator.broadcast_bytes(bytes, 0)?.wait()?),
        }
    }

    /// Matrices that each are there on one rank, on every rank: the `n`th of rank `n` modulo the ranks. For each its
    /// shape and, on its rank, the matrix.
    ///
    /// # Errors
    /// [`crate::Error::Ranks`] when a rank is lost, or has a matrix of another shape.
    pub fn exchanged(
        &self,
        matrices: Vec<((usize, usize), Option<Tensor>)>,
    ) -> Result<Vec<Tensor>> {
        let Some(communicator) = &self.communicator else {
            return Ok(matrices.into_iter().filter_map(|(_, matrix)| matrix).collect());
        };
        // All are on their way before the first is waited for.
        let begun = matrices.into_iter().enumerate().map(|(index, (shape, matrix))| {
            let numbers = match &matrix {
                Some(matrix) => memory::floats(matrix, OP)?.to_vec(),
                None => vec![0.0; shape.0 * shape.1],
            };
            Ok((shape, communicator.broadcast(numbers, index % self.size())?))
        });
        let begun = begun.collect::<Result<Vec<_>>>()?;
        begun
            .into_iter()
            .map(|(shape, numbers)| Ok(memory::tensor(numbers.wait()?, shape)?))
            .collect()
    }

    /// The sum of every rank's `part`, where that is and held as it is. An f32 `part` is summed in place.
    ///
    /// # Shapes
    /// The same on all ranks.
    pub(crate) fn sum(&self, part: Tensor) -> Result<Tensor> {
        let Some(communicator) = &self.communicator else { return Ok(part) };
        // Of numbers of fewer bits too, sums are f32 and rounded once.
        let held = part.dtype();
        let part = part.to_dtype(DType::F32).during("sum over ranks")?;
        let sum = communicator.sum_tensor(part)?.wait()?;
        sum.to_dtype(held).during("sum over ranks")
    }

    /// The columns of all ranks side by side, where `part` is; `columns` are each rank's.
    ///
    /// # Shapes
    /// `part` (rows, this rank's columns), in f32; gives (rows, all columns).
    pub(crate) fn side_by_side(&self, part: Tensor, columns: &[Range<usize>]) -> Result<Tensor> {
        const WHAT: &str = "join the columns of ranks";
        let Some(communicator) = &self.communicator else { return Ok(part) };
        let (rows, width) = part.dims2().during(WHAT)?;
        let widest = columns.iter().map(ExactSizeIterator::len).max().unwrap_or_default();
        if rows == 0 {
            let whole = columns.last().map_or(0, |columns| columns.end);
            return Ok(memory::zeros(&[0, whole], part.device())?);
        }
        // All ranks give as many.
        let padded = part.pad_with_zeros(1, 0, widest.saturating_sub(width)).during(WHAT)?;
        let all = communicator.all_gather_tensor(padded)?.wait()?;
        let all = all.reshape((columns.len(), rows, widest)).during(WHAT)?;
        let of_rank = |(rank, columns): (usize, &Range<usize>)| {
            all.get(rank).and_then(|part| part.narrow(1, 0, columns.len()))
        };
        let parts = columns.iter().enumerate().map(of_rank).collect::<Result<Vec<_>, _>>();
        parts.and_then(|parts| Tensor::cat(&parts, 1)).during(WHAT)
    }
}
