//! The ranks that train one model together.
//!
//! All ranks run the same program over the same questions and know of every completion. Each samples, scores and learns
//! from its own share; what follows for all (advantages, stages, the learning rate) each works out for itself and the
//! same, and the gradients are summed. A run alone is a team of one.

use std::sync::Arc;

use embodied_r_dist::{Communicator, Reduce};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::model::{OnLayer, Share};

/// A rank's place among those that train together, and what they tell each other.
#[derive(Debug, Clone)]
pub struct Team {
    communicator: Communicator,
}

impl Default for Team {
    fn default() -> Self {
        Self::new(Communicator::single())
    }
}

impl Team {
    /// The ranks of `communicator`.
    #[must_use]
    pub fn new(communicator: Communicator) -> Self {
        Self { communicator }
    }

    /// How many they are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.communicator.world_size()
    }

    /// This one's number, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.communicator.rank()
    }

    /// Whether this one writes what is there once: events, configurations.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// What the ranks do now, for whoever asks why one is late.
    pub fn enter(&self, phase: &'static str) {
        self.communicator.enter(phase);
    }

    /// This one's share of what all write together.
    #[must_use]
    pub fn writer(&self) -> Share {
        Share { index: self.rank(), of: self.size() }
    }

    /// A sign that work goes on.
    pub fn beat(&self) {
        self.communicator.beat();
    }

    /// What a model calls as its passes get on.
    #[must_use]
    pub fn on_layer(&self) -> OnLayer {
        let team = self.clone();
        Arc::new(move || team.beat())
    }

    /// Bytes that this rank has sent to others so far, as counted.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.communicator.traffic().values().map(|traffic| traffic.bytes_sent).sum()
    }

    /// The collectives themselves.
    #[must_use]
    pub fn communicator(&self) -> &Communicator {
        &self.communicator
    }

    /// Waits for all.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn wait(&self) -> Result<()> {
        Ok(self.communicator.barrier()?)
    }

    /// Whether `own` is true on any rank.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn any(&self, own: bool) -> Result<bool> {
        if self.size() == 1 {
            return Ok(own);
        }
        let all = self.communicator.all_gather_bytes(vec![u8::from(own)])?.wait()?;
        Ok(all.iter().any(|flag| flag.first() == Some(&1)))
    }

    /// The sums over all ranks, one by one.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn sums(&self, own: Vec<f64>) -> Result<Vec<f64>> {
        match self.size() {
            1 => Ok(own),
            _ => Ok(self.communicator.all_reduce_f64(own, Reduce::Sum)?.wait()?),
        }
    }

    /// What every rank gives, in their order.
    ///
    /// # Errors
    /// A rank is lost, or speaks of something else.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>> {
        if self.size() == 1 {
            return Ok(vec![own]);
        }
        let unwritten = |source| Error::Exchange { what: "write down", source };
        let bytes = postcard::to_allocvec(&own).map_err(unwritten)?;
        let all = self.communicator.all_gather_bytes(bytes)?.wait()?;
        let unread = |source| Error::Exchange { what: "read", source };
        all.iter().map(|bytes| postcard::from_bytes(bytes).map_err(unread)).collect()
    }

    /// Which rank does each piece of work, where they cost so much: the dearest first, each to whoever has least so far.
    #[must_use]
    pub fn deal(&self, costs: &[usize]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by_key(|&index| (std::cmp::Reverse(costs[index]), index));
        let mut loads = vec![0_usize; self.size()];
        let mut owners = vec![0; costs.len()];
        for index in order {
            let least = (0..loads.len()).min_by_key(|&rank| loads[rank]).unwrap_or_default();
            loads[least] += costs[index].max(1);
            owners[index] = least;
        }
        owners
    }

    /// What the first rank gives; the others' is as good, but for what tells of clocks and machines.
    ///
    /// # Errors
    /// As [`Self::gather`].
    pub fn of_first<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<T> {
        let mut all = self.gather(own)?;
        Ok(all.swap_remove(0))
    }

    /// The pieces of work that [`Self::deal`] gives to this rank.
    #[must_use]
    pub fn share(&self, costs: &[usize]) -> Vec<usize> {
        let owners = self.deal(costs).into_iter().enumerate();
        owners.filter(|(_, owner)| *owner == self.rank()).map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_dist::Options;

    use super::*;

    fn of(ranks: usize) -> Vec<Team> {
        let communicators = Communicator::threads(ranks, &Options::default()).unwrap();
        communicators.into_iter().map(Team::new).collect()
    }

    #[test]
    fn the_dearest_work_is_dealt_first_and_nobody_has_much_more_than_another() {
        let teams = of(2);
        assert_eq!(teams[0].deal(&[1, 7, 2, 4]), [1, 0, 1, 1]);
        assert_eq!(teams[1].share(&[1, 7, 2, 4]), [0, 2, 3]);
        // What seems to cost nothing is shared out too.
        assert_eq!(teams[0].deal(&[0, 0, 0, 0]), [0, 1, 0, 1]);
        assert_eq!(Team::default().deal(&[3, 5]), [0, 0]);
    }

    #[test]
    fn what_one_gives_all_get() {
        let told = std::thread::scope(|scope| {
            let tell = |team: Team| {
                let rank = team.rank();
                let all = team.gather((rank, f64::NAN.to_bits())).unwrap();
                let any = team.any(rank == 2).unwrap() && !team.any(false).unwrap();
                let sums = team.sums(vec![rank as f64, 1.0]).unwrap();
                let first = team.of_first(rank).unwrap();
                team.communicator().finish().unwrap();
                (all.into_iter().map(|(rank, _)| rank).collect::<Vec<_>>(), any, sums, first)
            };
            let threads: Vec<_> =
                of(3).into_iter().map(|team| scope.spawn(move || tell(team))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(
            told.iter().all(|told| *told == (vec![0, 1, 2], true, vec![3.0, 3.0], 0)),
            "{told:?}"
        );
    }
}
