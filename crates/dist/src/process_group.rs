//! The ranks of a job that run the same program, each on its share of the work.
//!
//! Collectives return the same on every rank, and work is assigned by cost alone, so that all ranks compute the same
//! assignment. A single process is a group of one.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::operation::Reduce;

/// This rank and its collectives with the others.
#[derive(Debug, Clone)]
pub struct ProcessGroup {
    communicator: Communicator,
}

impl Default for ProcessGroup {
    fn default() -> Self {
        Self::new(Communicator::single())
    }
}

impl ProcessGroup {
    /// Wraps `communicator`.
    #[must_use]
    pub fn new(communicator: Communicator) -> Self {
        Self { communicator }
    }

    /// The number of ranks.
    #[must_use]
    pub fn world_size(&self) -> usize {
        self.communicator.world_size()
    }

    /// This rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.communicator.rank()
    }

    /// Whether this is rank 0, which writes what is written once: events, configurations.
    #[must_use]
    pub fn is_rank_zero(&self) -> bool {
        self.rank() == 0
    }

    /// Names the current phase, for reports of a late rank.
    pub fn enter(&self, phase: &'static str) {
        self.communicator.enter_phase(phase);
    }

    /// Sends a heartbeat.
    pub fn heartbeat(&self) {
        self.communicator.heartbeat();
    }

    /// The callback of a model's passes: sends a heartbeat per layer.
    #[must_use]
    pub fn on_layer(&self) -> Arc<dyn Fn() + Send + Sync> {
        let process_group = self.clone();
        Arc::new(move || process_group.heartbeat())
    }

    /// Bytes that this rank has sent so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.communicator.traffic().values().map(|traffic| traffic.bytes_sent).sum()
    }

    /// Seconds that this rank has waited for others so far, and for data of theirs.
    #[must_use]
    pub fn seconds_waited(&self) -> f64 {
        self.communicator.time_waited().as_secs_f64()
    }

    /// The underlying communicator.
    #[must_use]
    pub fn communicator(&self) -> &Communicator {
        &self.communicator
    }

    /// Waits for all ranks.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn barrier(&self) -> Result<()> {
        self.communicator.barrier()
    }

    /// Whether `own` is true on any rank.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn any(&self, own: bool) -> Result<bool> {
        if self.world_size() == 1 {
            return Ok(own);
        }
        let all = self.communicator.all_gather_bytes(vec![u8::from(own)])?.wait()?;
        Ok(all.iter().any(|flag| flag.first() == Some(&1)))
    }

    /// Element-wise sums over all ranks.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn all_reduce_sum(&self, own: Vec<f64>) -> Result<Vec<f64>> {
        match self.world_size() {
            1 => Ok(own),
            _ => self.communicator.all_reduce_f64(own, Reduce::Sum)?.wait(),
        }
    }

    /// Gathers one value from every rank, in rank order.
    ///
    /// # Errors
    /// A rank is lost, or its message cannot be deserialized.
    pub fn all_gather<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>> {
        if self.world_size() == 1 {
            return Ok(vec![own]);
        }
        let serialize_error = |source| Error::Exchange { what: "serialize", source };
        let bytes = postcard::to_allocvec(&own).map_err(serialize_error)?;
        let all = self.communicator.all_gather_bytes(bytes)?.wait()?;
        let deserialize_error = |source| Error::Exchange { what: "deserialize", source };
        all.iter().map(|bytes| postcard::from_bytes(bytes).map_err(deserialize_error)).collect()
    }

    /// The rank of each work item, balanced by cost: greedily the most expensive item first, each to the least-loaded
    /// rank.
    #[must_use]
    pub fn assign(&self, costs: &[usize]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by_key(|&index| (std::cmp::Reverse(costs[index]), index));
        let mut loads = vec![0_usize; self.world_size()];
        let mut owners = vec![0; costs.len()];
        for index in order {
            let least = (0..loads.len()).min_by_key(|&rank| loads[rank]).unwrap_or_default();
            loads[least] += costs[index].max(1);
            owners[index] = least;
        }
        owners
    }

    /// The value of rank 0. The ranks may only differ in values that depend on clocks and machines.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    pub fn broadcast<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<T> {
        let mut all = self.all_gather(own)?;
        Ok(all.swap_remove(0))
    }

    /// The indices of the work items that [`Self::assign`] gives to this rank.
    #[must_use]
    pub fn assigned(&self, costs: &[usize]) -> Vec<usize> {
        let owners = self.assign(costs).into_iter().enumerate();
        owners.filter(|(_, owner)| *owner == self.rank()).map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::CommunicatorOptions;

    fn of(ranks: usize) -> Vec<ProcessGroup> {
        let communicators = Communicator::threads(ranks, &CommunicatorOptions::default()).unwrap();
        communicators.into_iter().map(ProcessGroup::new).collect()
    }

    #[test]
    fn the_most_expensive_work_is_assigned_first_and_the_load_is_balanced() {
        let groups = of(2);
        assert_eq!(groups[0].assign(&[1, 7, 2, 4]), [1, 0, 1, 1]);
        assert_eq!(groups[1].assigned(&[1, 7, 2, 4]), [0, 2, 3]);
        // Work of zero cost is spread too.
        assert_eq!(groups[0].assign(&[0, 0, 0, 0]), [0, 1, 0, 1]);
        assert_eq!(ProcessGroup::default().assign(&[3, 5]), [0, 0]);
    }

    #[test]
    fn collectives_return_the_same_on_every_rank() {
        let results = Communicator::on_threads(3, |communicator| {
            let process_group = ProcessGroup::new(communicator);
            let rank = process_group.rank();
            let all = process_group.all_gather((rank, f64::NAN.to_bits())).unwrap();
            let any = process_group.any(rank == 2).unwrap() && !process_group.any(false).unwrap();
            let sums = process_group.all_reduce_sum(vec![rank as f64, 1.0]).unwrap();
            let first = process_group.broadcast(rank).unwrap();
            process_group.communicator().finish().unwrap();
            (all.into_iter().map(|(rank, _)| rank).collect::<Vec<_>>(), any, sums, first)
        })
        .unwrap();
        assert!(
            results.iter().all(|results| *results == (vec![0, 1, 2], true, vec![3.0, 3.0], 0)),
            "{results:?}"
        );
    }
}
