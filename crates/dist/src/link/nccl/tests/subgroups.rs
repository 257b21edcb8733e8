//! Subgroups, each with its own NCCL communicator.

use super::*;

#[test]
fn gpu_subgroups_and_the_world_communicate_independently() {
    let (ranks, scripts) = ranks(4, LONG, || Script { polls: 2, ..Script::default() });
    let results = each(ranks, |rank| {
        let part = rank.split(2).unwrap();
        assert_eq!((part.rank(), part.world_size()), (rank.rank() % 2, 2));
        // One subgroup makes many more calls than the other.
        let calls = if rank.rank() < 2 { 1 } else { 60 };
        let mut sum = 0.0;
        for _ in 0..calls {
            let number = memory::tensor(vec![rank.rank() as f32], 1).unwrap();
            let pending = part.all_reduce_tensor(number).unwrap();
            sum = pending.wait().unwrap().to_vec1::<f32>().unwrap()[0];
        }
        let all = rank.all_gather(vec![sum]).unwrap().wait().unwrap();
        let broadcast = part.broadcast_bytes(vec![rank.rank() as u8], 1).unwrap().wait().unwrap();
        part.finish().unwrap();
        rank.finish().unwrap();
        (all, broadcast)
    });
    for (rank, (all, broadcast)) in results.into_iter().enumerate() {
        assert_eq!((all, broadcast), (vec![1.0, 1.0, 5.0, 5.0], vec![rank as u8 / 2 * 2 + 1]));
    }
    for script in scripts {
        assert_eq!(finalized_and_aborted(&script), (2, 0));
    }
}

#[test]
fn a_failed_rank_aborts_world_and_subgroups_on_all_ranks() {
    let (ranks, scripts) = ranks(4, LONG, Script::default);
    let messages = each(ranks, |rank| {
        let part = rank.split(2).unwrap();
        let error = match rank.rank() {
            3 => {
                until(&|| lock(&scripts[2]).is_hanging);
                rank.fail("no memory")
            }
            2 => {
                lock(&scripts[2]).hangs = true;
                part.barrier().unwrap_err()
            }
            // The other subgroup continues meanwhile.
            _ => loop {
                if let Err(error) = part.barrier() {
                    break error;
                }
            },
        };
        error.to_string()
    });
    let expected = "rank 3 on `thread` failed: no memory";
    assert!(messages.iter().all(|message| message.contains(expected)), "{messages:?}");
    for script in scripts {
        until(&|| finalized_and_aborted(&script) == (0, 2));
    }
}

#[test]
fn a_failed_split_is_reported_on_all_ranks() {
    let (ranks, scripts) = ranks(4, LONG, Script::default);
    lock(&scripts[1]).is_full = true;
    let messages = each(ranks, |rank| rank.split(2).unwrap_err().to_string());
    let expected = "rank 1 on `thread` failed: cannot create a stream: out of memory";
    assert!(messages.iter().all(|message| message.contains(expected)), "{messages:?}");
}
