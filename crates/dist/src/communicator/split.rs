//! Subgroups: ranks that communicate without waiting for the others.

use std::sync::Arc;

use super::{Communicator, Peers, Rank};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::operation::{GroupKind, Operation};
use crate::traffic::Counters;

impl Communicator {
    /// Splits the job into `parts` equal subgroups of consecutive ranks and returns this rank's. Subgroups make their
    /// calls independently, interleaved with calls of the whole world. Phases, heartbeats and failure reports remain
    /// the job's and use world ranks; a subgroup ends with the job. All ranks call this, at most once.
    ///
    /// # Errors
    ///
    /// `parts` does not divide the world size, the job is already split, and as for all collectives.
    pub fn split(&self, parts: usize) -> Result<Self> {
        let (operation, world_size) = (Operation::Split, self.world_size());
        let refused = |why| Err(Error::Length { operation, length: parts, world_size, why });
        if parts == 0 || !world_size.is_multiple_of(parts) {
            return refused("the number of ranks is not a multiple of the number of subgroups");
        }
        let Some(peers) = self.0.peers.as_ref().filter(|_| parts > 1) else {
            return Ok(self.clone());
        };
        if self.0.kind == GroupKind::Subgroup || peers.queue.is_split() {
            return refused("the job is already split");
        }
        let size = world_size / parts;
        let (first, rank) = (self.rank() / size * size, self.rank() % size);
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let call = self.call(operation, parts, 0);
        let split = peers.queue.submit(GroupKind::World, call, move |world, _| {
            let part = Group {
                link: world.link.split(first, rank, size)?,
                rank_state: Arc::clone(&world.rank_state),
                counters: counted,
                hosts: world.hosts[first..first + size].to_vec(),
                rank,
                first,
                world_size: size,
                operation: Operation::Barrier,
                subgroup: None,
            };
            world.rank_state.join_subgroup(first);
            world.subgroup = Some(Box::new(part));
            Ok(())
        })?;
        split.wait()?;
        Ok(Self(Arc::new(Rank {
            rank,
            kind: GroupKind::Subgroup,
            world_size: size,
            device: self.0.device,
            options: self.0.options.clone(),
            hosts: self.hosts()[first..first + size].to_vec(),
            rank_state: Arc::clone(&self.0.rank_state),
            counters,
            peers: Some(Peers {
                queue: Arc::clone(&peers.queue),
                client: Arc::clone(&peers.client),
            }),
            parent: Some(self.clone()),
        })))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use crate::{Communicator, CommunicatorOptions, FailureCause, Reduce};

    /// The results of `work` on each rank.
    fn over<T: Send>(ranks: usize, work: impl Fn(&Communicator) -> T + Sync) -> Vec<T> {
        let options = CommunicatorOptions {
            deadline: Duration::from_secs(5),
            ..CommunicatorOptions::default()
        };
        let ranks = Communicator::threads(ranks, &options).unwrap();
        thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                ranks.into_iter().map(|rank| scope.spawn(move || work(&rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn subgroups_and_the_world_communicate_independently() {
        let results = over(4, |rank| {
            let part = rank.split(2).unwrap();
            assert_eq!((part.rank(), part.world_size()), (rank.rank() % 2, 2));
            // One subgroup makes many more calls than the other.
            let calls = if rank.rank() < 2 { 1 } else { 60 };
            let mut sum = vec![rank.rank() as f32];
            for _ in 0..calls {
                let number = vec![rank.rank() as f32];
                sum = part.all_reduce(number, Reduce::Sum).unwrap().wait().unwrap();
            }
            let broadcast =
                part.broadcast_bytes(vec![rank.rank() as u8], 1).unwrap().wait().unwrap();
            let shared = part.broadcast_from_rank_0(vec![rank.rank() as u8 + 10]).unwrap();
            let all = rank.all_gather(sum).unwrap().wait().unwrap();
            let pieces = vec![vec![rank.rank() as u8], vec![7]];
            let swapped = part.all_to_all_bytes(pieces).unwrap().wait().unwrap();
            part.finish().unwrap();
            rank.finish().unwrap();
            (all, broadcast, shared, swapped[1].clone())
        });
        for (rank, (all, broadcast, shared, swapped)) in results.into_iter().enumerate() {
            assert_eq!(all, [1.0, 1.0, 5.0, 5.0]);
            let first = rank as u8 / 2 * 2;
            assert_eq!((broadcast, shared), (vec![first + 1], vec![first + 10]));
            assert_eq!(swapped, if rank % 2 == 0 { [first + 1] } else { [7] });
        }
    }

    #[test]
    fn a_rank_that_hangs_in_a_subgroup_is_named_by_its_world_rank() {
        let reports = over(4, |rank| {
            let part = rank.split(2).unwrap();
            if rank.rank() == 3 {
                // Alive but idle until the job is aborted.
                while rank.failure().is_none() {
                    thread::sleep(Duration::from_millis(20));
                }
                return rank.failure().unwrap();
            }
            // The other subgroup continues meanwhile.
            loop {
                if part.barrier().is_err() {
                    return rank.failure().unwrap();
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        for report in reports {
            assert_eq!(report.rank, 3, "{report}");
            assert!(matches!(report.cause, FailureCause::Hung { .. }), "{report}");
        }
    }

    #[test]
    fn ranks_are_split_evenly_and_once() {
        over(3, |rank| {
            let message = rank.split(2).unwrap_err().to_string();
            assert!(message.contains("not a multiple of the number of subgroups"), "{message}");
            assert_eq!(rank.split(1).unwrap().world_size(), 3);
            let part = rank.split(3).unwrap();
            assert!(part.split(1).unwrap().world_size() == 1 && rank.split(3).is_err());
            rank.finish().unwrap();
        });
        assert_eq!(Communicator::single().split(1).unwrap().world_size(), 1);
    }
}
