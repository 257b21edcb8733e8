//! The collectives over threads, compared with serial computations.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::operation::Reduce;

fn over<T: Send + 'static>(
    world_size: usize,
    work: impl Fn(&Communicator) -> T + Send + Sync + Clone + 'static,
) -> Vec<T> {
    let ranks = Communicator::threads(world_size, &CommunicatorOptions::default()).unwrap();
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

/// Values of a rank whose sums depend on the order of accumulation.
fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|at| ((at * 31 + rank * 17 + 3) as f32).sin() * 1e3).collect()
}

fn sum(world_size: usize, length: usize) -> Vec<f32> {
    let all: Vec<_> = (0..world_size).map(|rank| values(rank, length)).collect();
    (0..length).map(|at| all[1..].iter().fold(all[0][at], |sum, values| sum + values[at])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn collectives_match_a_serial_computation(world_size in 1usize..5, length in 0usize..9000) {
        let results = over(world_size, move |rank| {
            let (me, world) = (rank.rank(), rank.world_size());
            let reduced = rank.all_reduce(values(me, length), Reduce::Sum).unwrap();
            let scattered = rank.reduce_scatter(values(me, length * world)).unwrap();
            let gathered = rank.all_gather(values(me, length)).unwrap();
            let root = world - 1;
            let broadcast = rank.broadcast(values(me, length), root).unwrap();
            [reduced, scattered, gathered, broadcast].map(|pending| pending.wait().unwrap())
        });
        let gathered: Vec<_> = (0..world_size).flat_map(|rank| values(rank, length)).collect();
        let sums = sum(world_size, length * world_size);
        for (rank, result) in results.into_iter().enumerate() {
            prop_assert_eq!(&result[0], &sum(world_size, length));
            prop_assert_eq!(&result[1], &sums[rank * length..][..length]);
            prop_assert_eq!(&result[2], &gathered);
            prop_assert_eq!(&result[3], &values(world_size - 1, length));
        }
    }
}

#[test]
fn sums_are_bit_identical_across_algorithms() {
    let length = 3 * 5000;
    let results = over(3, move |rank| {
        let values = values(rank.rank(), length);
        let whole = rank.all_reduce(values.clone(), Reduce::Sum).unwrap();
        let part = rank.reduce_scatter(values.clone()).unwrap().wait().unwrap();
        let parts = rank.all_gather(part).unwrap().wait().unwrap();
        let few = rank.all_reduce(values[..10].to_vec(), Reduce::Sum).unwrap();
        (whole.wait().unwrap(), parts, few.wait().unwrap())
    });
    for (whole, parts, few) in results {
        assert_eq!(whole, parts);
        assert_eq!(whole[..10], few);
    }
}

#[test]
fn bytes_of_any_length_arrive() {
    let results = over(3, |rank| {
        let me = rank.rank();
        let all = rank.all_gather_bytes(vec![me as u8; me * 1000]).unwrap();
        let pieces = (0..3).map(|to| vec![(10 * me + to) as u8; me * to]).collect();
        let swapped = rank.all_to_all_bytes(pieces).unwrap();
        let mine = if me == 1 { vec![7; 12345] } else { Vec::new() };
        let broadcast = rank.broadcast_bytes(mine, 1).unwrap();
        (all.wait().unwrap(), swapped.wait().unwrap(), broadcast.wait().unwrap())
    });
    for (me, (all, swapped, broadcast)) in results.into_iter().enumerate() {
        assert_eq!(all, [vec![], vec![1; 1000], vec![2; 2000]]);
        let expected: Vec<_> = (0..3).map(|from| vec![(10 * from + me) as u8; from * me]).collect();
        assert_eq!(swapped, expected);
        assert_eq!(broadcast, vec![7; 12345]);
    }
}

#[test]
fn max_and_min_are_over_all_ranks() {
    let results = over(3, |rank| {
        let me = rank.rank() as f64;
        let max = rank.all_reduce_f64(vec![me, -me], Reduce::Max).unwrap().wait().unwrap();
        let min = rank.all_reduce(vec![me as f32], Reduce::Min).unwrap().wait().unwrap();
        (max, min)
    });
    assert_eq!(results, vec![(vec![2.0, 0.0], vec![0.0]); 3]);
}

#[test]
fn a_single_rank_gets_its_input_back() {
    let rank = Communicator::single();
    assert_eq!(rank.all_reduce(vec![1.0], Reduce::Sum).unwrap().wait().unwrap(), [1.0]);
    assert_eq!(rank.reduce_scatter(vec![1.0, 2.0]).unwrap().wait().unwrap(), [1.0, 2.0]);
    assert_eq!(rank.all_gather_bytes(vec![5]).unwrap().wait().unwrap(), [[5]]);
    assert_eq!(rank.broadcast_from_rank_0(vec![3]).unwrap(), [3]);
    rank.barrier().unwrap();
    assert_eq!(rank.traffic()[&Operation::Barrier].bytes_sent, 0);
    rank.finish().unwrap();
}

#[test]
fn mismatched_collectives_are_named_on_both_ranks() {
    let ranks = Communicator::threads(2, &CommunicatorOptions::default()).unwrap();
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
                "rank 1 on `thread` called a different collective than rank 0: all-gather of length 5 \
                 (call 1), but rank 0 called all-reduce (sum) of length 4 (call 1)"
            ),
            "{error}"
        );
    }
}

#[test]
fn after_a_failure_every_call_returns_its_report() {
    let mut ranks = Communicator::threads(2, &CommunicatorOptions::default()).unwrap();
    let (last, first) = (ranks.pop().unwrap(), ranks.pop().unwrap());
    let pending = first.all_reduce(vec![0.0], Reduce::Sum).unwrap();
    let own = last.fail("the disk is full").to_string();
    assert_eq!(pending.wait().unwrap_err().to_string(), own);
    assert_eq!(first.barrier().unwrap_err().to_string(), own);
    assert_eq!(first.failure().unwrap().cause, FailureCause::Failed("the disk is full".into()));
}

#[test]
fn dropping_the_communicator_aborts_the_others() {
    let mut ranks = Communicator::threads(2, &CommunicatorOptions::default()).unwrap();
    drop(ranks.pop());
    let error = ranks[0].barrier().unwrap_err();
    assert_eq!(error.failure().unwrap().cause, FailureCause::Left);
}

#[test]
fn a_hook_gets_the_failure_report() {
    let mut ranks = Communicator::threads(2, &CommunicatorOptions::default()).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    ranks[0].on_failure(move |report| send.send(report.rank).unwrap());
    ranks.pop().unwrap().fail("no");
    assert_eq!(receive.recv_timeout(Duration::from_secs(60)).unwrap(), 1);
}

#[test]
fn calls_after_finish_are_refused() {
    let after = over(2, |rank| {
        let rank = rank.clone();
        move || rank.all_gather(vec![]).unwrap_err().to_string()
    });
    for call in after {
        assert_eq!(call(), "all-gather was called after the job was finished");
    }
}

#[test]
fn invalid_arguments_are_refused_before_any_data_moves() {
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
                "all-to-all of bytes of length 0 over 2 ranks: expected one chunk per rank",
                "broadcast from rank 2, but there are 2 ranks",
            ]
        );
    }
}

#[test]
fn traffic_counts_the_bytes_sent() {
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
fn a_rank_with_a_heartbeat_guard_is_waited_for() {
    let is_waited_for = |has_guard: bool| {
        let options = CommunicatorOptions {
            deadline: Duration::from_millis(500),
            ..CommunicatorOptions::default()
        };
        let mut ranks = Communicator::threads(2, &options).unwrap();
        let (late, first) = (ranks.pop().unwrap(), ranks.pop().unwrap());
        let late = thread::spawn(move || {
            let guard = has_guard.then(|| late.heartbeat_guard());
            thread::sleep(Duration::from_millis(1500));
            drop(guard);
            late.barrier().is_ok() && late.finish().is_ok()
        });
        let arrived = first.barrier().is_ok();
        assert_eq!(arrived && first.finish().is_ok(), late.join().unwrap());
        arrived
    };
    assert!(is_waited_for(true));
    assert!(!is_waited_for(false));
}

#[test]
fn a_rank_that_comes_early_waits_and_the_last_one_hardly_does() {
    let late = Duration::from_millis(300);
    let waited = over(2, move |rank| {
        rank.barrier().unwrap();
        let before = rank.time_waited();
        if rank.rank() == 1 {
            thread::sleep(late);
        }
        rank.barrier().unwrap();
        rank.time_waited() - before
    });
    assert!(waited[0] > late / 2 && waited[0] > waited[1], "{waited:?}");
    assert_eq!(Communicator::single().time_waited(), Duration::ZERO);
}
