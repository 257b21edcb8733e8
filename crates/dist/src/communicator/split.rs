//! Parts of a job: ranks that work together without waiting for the others.

use std::sync::Arc;

use super::{Communicator, Others, Rank};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::operation::Operation;
use crate::traffic::Counters;
use crate::worker::Lane;

impl Communicator {
    /// This rank's part of the job, where it is divided into `parts` of as many consecutive ranks each. Parts make their
    /// calls without each other, and calls of all ranks may stand between them. Phases, signs of life and verdicts are
    /// the job's, in which ranks have the numbers that they have there; a part's end is that of the job. All ranks call
    /// this, and once at most.
    ///
    /// # Errors
    ///
    /// The ranks cannot be divided so or are divided already, and as of all collectives.
    pub fn split(&self, parts: usize) -> Result<Self> {
        let (operation, world_size) = (Operation::Split, self.world_size());
        let refused = |why| Err(Error::Length { operation, length: parts, world_size, why });
        if parts == 0 || !world_size.is_multiple_of(parts) {
            return refused("the number of ranks is not a multiple of the number of parts");
        }
        let Some(others) = self.0.others.as_ref().filter(|_| parts > 1) else {
            return Ok(self.clone());
        };
        if self.0.lane == Lane::Part || others.queue.is_split() {
            return refused("a job is divided once");
        }
        let size = world_size / parts;
        let (first, rank) = (self.rank() / size * size, self.rank() % size);
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let call = self.call(operation, parts, 0);
        let split = others.queue.submit(Lane::World, call, move |world, _| {
            let part = Group {
                link: world.link.split(first, rank, size)?,
                watch: Arc::clone(&world.watch),
                counters: counted,
                hosts: world.hosts[first..first + size].to_vec(),
                rank,
                first,
                world_size: size,
                operation: Operation::Barrier,
                part: None,
            };
            world.watch.join_part(first);
            world.part = Some(Box::new(part));
            Ok(())
        })?;
        split.wait()?;
        Ok(Self(Arc::new(Rank {
            rank,
            lane: Lane::Part,
            world_size: size,
            device: self.0.device,
            options: self.0.options.clone(),
            hosts: self.hosts()[first..first + size].to_vec(),
            watch: Arc::clone(&self.0.watch),
            counters,
            others: Some(Others {
                queue: Arc::clone(&others.queue),
                client: Arc::clone(&others.client),
            }),
            whole: Some(self.clone()),
        })))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use crate::{Communicator, Options, Reduce, Why};

    /// What each of so many ranks gives.
    fn over<T: Send>(ranks: usize, work: impl Fn(&Communicator) -> T + Sync) -> Vec<T> {
        let options = Options { deadline: Duration::from_secs(5), ..Options::default() };
        let ranks = Communicator::threads(ranks, &options).unwrap();
        thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                ranks.into_iter().map(|rank| scope.spawn(move || work(&rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn parts_work_without_each_other_and_with_all() {
        let results = over(4, |rank| {
            let part = rank.split(2).unwrap();
            assert_eq!((part.rank(), part.world_size()), (rank.rank() % 2, 2));
            // One part makes many more calls than the other.
            let calls = if rank.rank() < 2 { 1 } else { 60 };
            let mut sum = vec![rank.rank() as f32];
            for _ in 0..calls {
                let number = vec![rank.rank() as f32];
                sum = part.all_reduce(number, Reduce::Sum).unwrap().wait().unwrap();
            }
            let handed = part.broadcast_bytes(vec![rank.rank() as u8], 1).unwrap().wait().unwrap();
            let shared = part.share(vec![rank.rank() as u8 + 10]).unwrap();
            let all = rank.all_gather(sum).unwrap().wait().unwrap();
            let pieces = vec![vec![rank.rank() as u8], vec![7]];
            let swapped = part.all_to_all_bytes(pieces).unwrap().wait().unwrap();
            part.finish().unwrap();
            rank.finish().unwrap();
            (all, handed, shared, swapped[1].clone())
        });
        for (rank, (all, handed, shared, swapped)) in results.into_iter().enumerate() {
            assert_eq!(all, [1.0, 1.0, 5.0, 5.0]);
            let first = rank as u8 / 2 * 2;
            assert_eq!((handed, shared), (vec![first + 1], vec![first + 10]));
            assert_eq!(swapped, if rank % 2 == 0 { [first + 1] } else { [7] });
        }
    }

    #[test]
    fn one_that_hangs_in_a_part_is_named_by_its_number_in_the_job() {
        let told = over(4, |rank| {
            let part = rank.split(2).unwrap();
            if rank.rank() == 3 {
                // Lives, and does nothing, until the job is ended.
                while rank.verdict().is_none() {
                    thread::sleep(Duration::from_millis(20));
                }
                return rank.verdict().unwrap();
            }
            // The other part goes on meanwhile.
            loop {
                if part.barrier().is_err() {
                    return rank.verdict().unwrap();
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        for verdict in told {
            assert_eq!(verdict.rank, 3, "{verdict}");
            assert!(matches!(verdict.why, Why::Hung { .. }), "{verdict}");
        }
    }

    #[test]
    fn ranks_are_divided_evenly_and_once() {
        over(3, |rank| {
            let told = rank.split(2).unwrap_err().to_string();
            assert!(told.contains("not a multiple of the number of parts"), "{told}");
            assert_eq!(rank.split(1).unwrap().world_size(), 3);
            let part = rank.split(3).unwrap();
            assert!(part.split(1).unwrap().world_size() == 1 && rank.split(3).is_err());
            rank.finish().unwrap();
        });
        assert_eq!(Communicator::single().split(1).unwrap().world_size(), 1);
    }
}
