//! The collectives over ranks that are threads, against plain computations.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::operation::Reduce;

fn over<T: Send + 'static>(
    world_size: usize,
    work: impl Fn(&Communicator) -> T + Send + Sync + Clone + 'static,
) -> Vec<T> {
    let ranks = Communicator::threads(world_size, &Options::default()).unwrap();
    let threads: Vec<_> = ranks
        .into_iter()
        .map(|rank| {
            let work = work.clone();
            thread::spawn(move || {
                let result = work(&rank);
                rank.finish().unwrap();
                result
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Numbers of a rank whose sums depend on the order.
fn numbers(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|at| ((at * 31 + rank * 17 + 3) as f32).sin() * 1e3).collect()
}

fn sum(world_size: usize, length: usize) -> Vec<f32> {
    let all: Vec<_> = (0..world_size).map(|rank| numbers(rank, length)).collect();
    (0..length)
        .map(|at| all[1..].iter().fold(all[0][at], |sum, numbers| sum + numbers[at]))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn collectives_are_what_a_plain_computation_gives(world_size in 1usize..5, length in 0usize..9000) {
        let results = over(world_size, move |rank| {
            let (me, world) = (rank.rank(), rank.world_size());
            let reduced = rank.all_reduce(numbers(me, length), Reduce::Sum).unwrap();
            let scattered = rank.reduce_scatter(numbers(me, length * world)).unwrap();
            let gathered = rank.all_gather(numbers(me, length)).unwrap();
            let root = world - 1;
            let handed = rank.broadcast(numbers(me, length), root).unwrap();
            [reduced, scattered, gathered, handed].map(|pending| pending.wait().unwrap())
        });
        let gathered: Vec<_> = (0..world_size).flat_map(|rank| numbers(rank, length)).collect();
        let sums = sum(world_size, length * world_size);
        for (rank, result) in results.into_iter().enumerate() {
            prop_assert_eq!(&result[0], &sum(world_size, length));
            prop_assert_eq!(&result[1], &sums[rank * length..][..length]);
            prop_assert_eq!(&result[2], &gathered);
            prop_assert_eq!(&result[3], &numbers(world_size - 1, length));
        }
    }
}

#[test]
fn a_sum_has_the_same_bits_whichever_way_it_is_made() {
    let length = 3 * 5000;
    let results = over(3, move |rank| {
        let numbers = numbers(rank.rank(), length);
        let whole = rank.all_reduce(numbers.clone(), Reduce::Sum).unwrap();
        let part = rank.reduce_scatter(numbers.clone()).unwrap().wait().unwrap();
        let parts = rank.all_gather(part).unwrap().wait().unwrap();
        let few = rank.all_reduce(numbers[..10].to_vec(), Reduce::Sum).unwrap();
        (whole.wait().unwrap(), parts, few.wait().unwrap())
    });
    for (whole, parts, few) in results {
        assert_eq!(whole, parts);
        assert_eq!(whole[..10], few);
    }
}

#[test]
fn bytes_of_all_lengths_find_their_way() {
    let results = over(3, |rank| {
        let me = rank.rank();
        let all = rank.all_gather_bytes(vec![me as u8; me * 1000]).unwrap();
        let pieces = (0..3).map(|to| vec![(10 * me + to) as u8; me * to]).collect();
        let swapped = rank.all_to_all_bytes(pieces).unwrap();
        let mine = if me == 1 { vec![7; 12345] } else { Vec::new() };
        let handed = rank.broadcast_bytes(mine, 1).unwrap();
        (all.wait().unwrap(), swapped.wait().unwrap(), handed.wait().unwrap())
    });
    for (me, (all, swapped, handed)) in results.into_iter().enumerate() {
        assert_eq!(all, [vec![], vec![1; 1000], vec![2; 2000]]);
        let expected: Vec<_> = (0..3).map(|from| vec![(10 * from + me) as u8; from * me]).collect();
        assert_eq!(swapped, expected);
        assert_eq!(handed, vec![7; 12345]);
    }
}

#[test]
fn the_greatest_and_the_least_are_over_all_ranks() {
    let results = over(3, |rank| {
        let me = rank.rank() as f64;
        let max = rank.all_reduce_f64(vec![me, -me], Reduce::Max).unwrap().wait().unwrap();
        let min = rank.all_reduce(vec![me as f32], Reduce::Min).unwrap().wait().unwrap();
        (max, min)
    });
    assert_eq!(results, vec![(vec![2.0, 0.0], vec![0.0]); 3]);
}

#[test]
fn alone_everything_comes_back() {
    let rank = Communicator::single();
    assert_eq!(rank.all_reduce(vec![1.0], Reduce::Sum).unwrap().wait().unwrap(), [1.0]);
    assert_eq!(rank.reduce_scatter(vec![1.0, 2.0]).unwrap().wait().unwrap(), [1.0, 2.0]);
    assert_eq!(rank.all_gather_bytes(vec![5]).unwrap().wait().unwrap(), [[5]]);
    assert_eq!(rank.share(vec![3]).unwrap(), [3]);
    rank.barrier().unwrap();
    assert_eq!(rank.traffic()[&Operation::Barrier].bytes_sent, 0);
    rank.finish().unwrap();
}

#[test]
fn another_operation_is_named_on_both_ranks() {
    let ranks = Communicator::threads(2, &Options::default()).unwrap();
    let call = |rank: Communicator| {
        let pending = match rank.rank() {
            0 => rank.all_reduce(vec![1.0; 4], Reduce::Sum),
            _ => rank.all_gather(vec![1.0; 5]),
        };
        pending.unwrap().wait().unwrap_err().to_string()
    };
    let threads: Vec<_> = ranks.into_iter().map(|rank| thread::spawn(move || call(rank))).collect();
    let errors = threads.into_iter().map(|thread| thread.join().unwrap());
    for error in errors {
        assert!(
            error.contains(
                "rank 1 on `thread` calls something else than rank 0: all-gather of length 5 (call 1), \
                 where rank 0 calls all-reduce (sum) of length 4 (call 1)"
            ),
            "{error}"
        );
    }
}

#[test]
fn after_a_failure_every_call_says_why() {
    let mut ranks = Communicator::threads(2, &Options::default()).unwrap();
    let (last, first) = (ranks.pop().unwrap(), ranks.pop().unwrap());
    let pending = first.all_reduce(vec![0.0], Reduce::Sum).unwrap();
    let own = last.fail("the disk is full").to_string();
    assert_eq!(pending.wait().unwrap_err().to_string(), own);
    assert_eq!(first.barrier().unwrap_err().to_string(), own);
    assert_eq!(first.verdict().unwrap().why, Why::Failed("the disk is full".into()));
}

#[test]
fn who_drops_its_communicator_has_left() {
    let mut ranks = Communicator::threads(2, &Options::default()).unwrap();
    drop(ranks.pop());
    let error = ranks[0].barrier().unwrap_err();
    assert_eq!(error.verdict().unwrap().why, Why::Left);
}

#[test]
fn a_hook_learns_the_verdict() {
    let mut ranks = Communicator::threads(2, &Options::default()).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    ranks[0].on_lost(move |verdict| send.send(verdict.rank).unwrap());
    ranks.pop().unwrap().fail("no");
    assert_eq!(receive.recv_timeout(Duration::from_secs(60)).unwrap(), 1);
}

#[test]
fn nothing_may_be_called_after_the_end() {
    let after = over(2, |rank| {
        let rank = rank.clone();
        move || rank.all_gather(vec![]).unwrap_err().to_string()
    });
    for call in after {
        assert_eq!(call(), "all-gather was called after the job was finished");
    }
}

#[test]
fn arguments_that_cannot_be_are_refused_before_anything_moves() {
    let messages = over(2, |rank| {
        [
            rank.reduce_scatter(vec![0.0; 3]).unwrap_err().to_string(),
            rank.all_to_all_bytes(vec![]).unwrap_err().to_string(),
            rank.broadcast(vec![], 2).unwrap_err().to_string(),
        ]
    });
    for messages in messages {
        assert_eq!(
            messages,
            [
                "reduce-scatter of length 3 over 2 ranks: the length is not a multiple of the number of \
                 ranks",
                "all-to-all of bytes of length 0 over 2 ranks: there must be a piece for every rank",
                "broadcast from rank 2, but there are 2 ranks",
            ]
        );
    }
}

#[test]
fn bytes_are_counted_as_they_are_sent() {
    const HEADER: u64 = Call::SIZE as u64;
    let length = 40_000;
    let counted: Vec<BTreeMap<_, _>> = over(4, move |rank| {
        rank.all_reduce(vec![1.0; length], Reduce::Sum).unwrap().wait().unwrap();
        rank.reduce_scatter(vec![1.0; length]).unwrap().wait().unwrap();
        rank.traffic()
    });
    let part = (length as u64 / 4) * 4;
    for traffic in counted {
        let of = |operation| (traffic[&operation].calls, traffic[&operation].bytes_sent);
        assert_eq!(of(Operation::ReduceScatter), (1, 3 * (part + HEADER)));
        assert_eq!(of(Operation::AllReduce(Reduce::Sum)), (1, 3 * (2 * part + HEADER)));
    }
}

#[test]
fn a_rank_that_keeps_vigil_is_waited_for() {
    let is_waited_for = |keeps_vigil: bool| {
        let options = Options { deadline: Duration::from_millis(500), ..Options::default() };
        let mut ranks = Communicator::threads(2, &options).unwrap();
        let (late, first) = (ranks.pop().unwrap(), ranks.pop().unwrap());
        let late = thread::spawn(move || {
            let vigil = keeps_vigil.then(|| late.vigil());
            thread::sleep(Duration::from_millis(1500));
            drop(vigil);
            late.barrier().is_ok() && late.finish().is_ok()
        });
        let came = first.barrier().is_ok();
        assert_eq!(came && first.finish().is_ok(), late.join().unwrap());
        came
    };
    assert!(is_waited_for(true));
    assert!(!is_waited_for(false));
}
