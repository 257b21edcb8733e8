//! Tensor collectives on the CPU over threads, compared with the collectives over slices.

use std::thread;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::memory;

use crate::{Communicator, CommunicatorOptions, Operation, Reduce};

/// The results of `work` on each rank.
fn over<T: Send>(ranks: usize, work: impl Fn(&Communicator) -> T + Sync) -> Vec<T> {
    let ranks = Communicator::threads(ranks, &CommunicatorOptions::default()).unwrap();
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            ranks.into_iter().map(|rank| scope.spawn(move || work(&rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Values of a rank whose sums depend on the order of accumulation.
fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|at| ((at * 31 + rank * 17 + 3) as f32).sin() * 1e3).collect()
}

fn tensor(rank: usize, length: usize) -> Tensor {
    memory::tensor(values(rank, length), length).unwrap()
}

fn read(tensor: &Tensor) -> Vec<f32> {
    memory::floats(tensor, "test").unwrap().to_vec()
}

#[test]
fn tensor_collectives_match_slice_collectives_bit_for_bit() {
    for (ranks, part) in [(1, 7), (2, 0), (3, 5), (4, 5000)] {
        let results = over(ranks, |rank| {
            let (me, whole) = (rank.rank(), rank.world_size() * part);
            let sum = rank.all_reduce_tensor(tensor(me, whole)).unwrap();
            let scattered = rank.reduce_scatter_tensor(tensor(me, whole)).unwrap();
            let gathered = rank.all_gather_tensor(tensor(me, part)).unwrap();
            let tensors = [sum, scattered, gathered].map(|pending| pending.wait().unwrap());
            let sum = rank.all_reduce(values(me, whole), Reduce::Sum).unwrap();
            let scattered = rank.reduce_scatter(values(me, whole)).unwrap();
            let gathered = rank.all_gather(values(me, part)).unwrap();
            let slices = [sum, scattered, gathered].map(|pending| pending.wait().unwrap());
            let shapes = tensors.each_ref().map(|tensor| tensor.dims().to_vec());
            assert_eq!(shapes, [whole, part, whole].map(|length| vec![length]));
            rank.finish().unwrap();
            (tensors.each_ref().map(read), slices, rank.traffic())
        });
        for (tensors, slices, traffic) in results {
            assert_eq!(tensors, slices, "{ranks} ranks");
            let calls = [Operation::ReduceScatter, Operation::AllGather];
            assert_eq!(calls.map(|operation| traffic[&operation].calls), [2, 2]);
        }
    }
}

#[test]
fn an_all_reduce_keeps_the_shape_and_updates_shared_memory() {
    let results = over(2, |rank| {
        let whole = memory::tensor((0..12).map(|n| n as f32).collect(), (4, 3)).unwrap();
        let middle = whole.narrow(0, 1, 2).unwrap();
        let sum = rank.all_reduce_tensor(middle).unwrap().wait().unwrap();
        rank.finish().unwrap();
        (sum.dims().to_vec(), read(&sum), read(&whole))
    });
    let whole = [0.0, 1.0, 2.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 9.0, 10.0, 11.0];
    for (shape, sum, shared) in results {
        assert_eq!((shape, sum, shared), (vec![2, 3], whole[3..9].to_vec(), whole.to_vec()));
    }
}

#[test]
fn reduce_scatter_and_all_gather_return_new_memory() {
    let results = over(2, |rank| {
        let mine = memory::tensor(vec![1.0, 2.0, 3.0, 4.0], (2, 2)).unwrap();
        let row = mine.narrow(0, 1, 1).unwrap();
        let part = rank.reduce_scatter_tensor(mine.clone()).unwrap().wait().unwrap();
        let all = rank.all_gather_tensor(row).unwrap().wait().unwrap();
        rank.finish().unwrap();
        (read(&part), read(&all), read(&mine))
    });
    let mine = vec![1.0, 2.0, 3.0, 4.0];
    assert_eq!(results[0], (vec![2.0, 4.0], vec![3.0, 4.0, 3.0, 4.0], mine.clone()));
    assert_eq!(results[1], (vec![6.0, 8.0], vec![3.0, 4.0, 3.0, 4.0], mine));
}

#[test]
fn a_single_rank_gets_its_tensor_back() {
    let rank = Communicator::single();
    let mine = memory::tensor(vec![1.0, 2.0], (1, 2)).unwrap();
    let back = [
        rank.all_reduce_tensor(mine.clone()),
        rank.reduce_scatter_tensor(mine.clone()),
        rank.all_gather_tensor(mine.clone()),
    ];
    let address = |tensor: &Tensor| memory::data_ptr(tensor).unwrap();
    for tensor in back.map(|pending| pending.unwrap().wait().unwrap()) {
        assert_eq!(address(&tensor), address(&mine));
    }
}

#[test]
fn unsupported_tensors_are_refused_before_any_data_moves() {
    let messages = over(2, |rank| {
        let transposed = memory::tensor(vec![0.0; 6], (2, 3)).unwrap().t().unwrap();
        let bf16 = Tensor::zeros(4, DType::BF16, &Device::Cpu).unwrap();
        let refused = [
            rank.all_reduce_tensor(transposed.clone()),
            rank.reduce_scatter_tensor(transposed),
            rank.all_gather_tensor(bf16),
            rank.reduce_scatter_tensor(tensor(0, 3)),
        ];
        rank.barrier().unwrap();
        rank.finish().unwrap();
        refused.map(|refused| refused.unwrap_err().to_string())
    });
    let storage = "cannot send a tensor: `data_ptr` needs contiguous f32 tensors on the CPU";
    let length = "reduce-scatter of length 3 over 2 ranks: the length is not a multiple of the number of ranks";
    assert_eq!(messages, [[storage, storage, storage, length]; 2]);
}

#[test]
fn mismatched_tensor_lengths_abort_the_job_and_name_both_calls() {
    let messages = over(2, |rank| {
        let pending = rank.all_reduce_tensor(tensor(0, 4 + rank.rank())).unwrap();
        pending.wait().unwrap_err().to_string()
    });
    let expected =
        "all-reduce (sum) of length 5 (call 1), but rank 0 called all-reduce (sum) of length 4";
    assert!(messages.iter().all(|message| message.contains(expected)), "{messages:?}");
}
