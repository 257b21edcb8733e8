//! Parts of the ranks, each with a communicator of its own.

use super::*;

#[test]
fn parts_of_gpus_work_without_each_other_and_with_all() {
    let (ranks, scripts) = ranks(4, LONG, || Script { underway: 2, ..Script::default() });
    let told = each(ranks, |rank| {
        let part = rank.split(2).unwrap();
        assert_eq!((part.rank(), part.world_size()), (rank.rank() % 2, 2));
        // One part makes many more calls than the other.
        let calls = if rank.rank() < 2 { 1 } else { 60 };
        let mut sum = 0.0;
        for _ in 0..calls {
            let number = memory::tensor(vec![rank.rank() as f32], 1).unwrap();
            let pending = part.sum_tensor(number).unwrap();
            sum = pending.wait().unwrap().to_vec1::<f32>().unwrap()[0];
        }
        let all = rank.all_gather(vec![sum]).unwrap().wait().unwrap();
        let handed = part.broadcast_bytes(vec![rank.rank() as u8], 1).unwrap().wait().unwrap();
        part.finish().unwrap();
        rank.finish().unwrap();
        (all, handed)
    });
    for (rank, (all, handed)) in told.into_iter().enumerate() {
        assert_eq!((all, handed), (vec![1.0, 1.0, 5.0, 5.0], vec![rank as u8 / 2 * 2 + 1]));
    }
    for script in scripts {
        assert_eq!(ended(&script), (2, 0));
    }
}

#[test]
fn one_that_fails_ends_whole_and_parts_on_all_ranks() {
    let (ranks, scripts) = ranks(4, LONG, Script::default);
    let told = each(ranks, |rank| {
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
            // The other part goes on meanwhile.
            _ => loop {
                if let Err(error) = part.barrier() {
                    break error;
                }
            },
        };
        error.to_string()
    });
    let says = "rank 3 on `thread` failed: no memory";
    assert!(told.iter().all(|told| told.contains(says)), "{told:?}");
    for script in scripts {
        until(&|| ended(&script) == (0, 2));
    }
}

#[test]
fn a_part_that_cannot_be_made_is_told_to_all() {
    let (ranks, scripts) = ranks(4, LONG, Script::default);
    lock(&scripts[1]).is_full = true;
    let told = each(ranks, |rank| rank.split(2).unwrap_err().to_string());
    let says = "rank 1 on `thread` failed: cannot make a stream: there is no room";
    assert!(told.iter().all(|told| told.contains(says)), "{told:?}");
}
