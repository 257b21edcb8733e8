//! Tensor collectives on fake GPUs, whose memory is memory of this process.

use super::*;

/// The results of the tensor collectives on a rank: first of whole tensors, then of slices.
fn over_tensors(ranks: &Communicator) -> Vec<Vec<f32>> {
    let me = ranks.rank() as f32;
    let values: Vec<f32> = (0..12).map(|n| (n as f32 + 0.3) * (me - 0.7)).collect();
    let whole = |from| {
        let tensor = memory::tensor(values.clone(), 12).unwrap();
        tensor.narrow(0, from, 12 - 2 * from).unwrap()
    };
    let begun = [0, 3].map(|from| {
        let sum = ranks.all_reduce_tensor(whole(from)).unwrap();
        let part = ranks.reduce_scatter_tensor(whole(from)).unwrap();
        let all = ranks.all_gather_tensor(whole(from)).unwrap();
        [sum, part, all, ranks.all_reduce_tensor(memory::tensor(Vec::new(), 0).unwrap()).unwrap()]
    });
    let results = begun.into_iter().flatten().map(|pending| {
        let tensor = pending.wait().unwrap();
        tensor.to_vec1().unwrap()
    });
    let results = results.collect();
    ranks.finish().unwrap();
    results
}

#[test]
fn gpu_tensors_give_the_host_result_without_the_host() {
    let host = Communicator::threads(3, &CommunicatorOptions::default()).unwrap();
    let (gpus, scripts) = ranks(3, LONG, || Script { polls: 2, ..Script::default() });
    assert_eq!(each(gpus, over_tensors), each(host, over_tensors));
    for script in scripts {
        // The host only exchanges the headers of eight calls and of `finish`.
        assert_eq!(lock(&script).stages, 9);
    }
}

#[test]
fn a_gpu_tensor_does_not_match_a_host_buffer() {
    let (ranks, _) = ranks(2, LONG, Script::default);
    let messages = each(ranks, |ranks| {
        let error = match ranks.rank() {
            0 => ranks.reduce_scatter(vec![0.0; 4]).unwrap().wait().unwrap_err(),
            _ => {
                let tensor = memory::tensor(vec![0.0; 4], 4).unwrap();
                ranks.reduce_scatter_tensor(tensor).unwrap().wait().unwrap_err()
            }
        };
        error.to_string()
    });
    let expected =
        "rank 1 on `thread` called a different collective than rank 0: reduce-scatter of length 16";
    assert!(messages.iter().all(|message| message.contains(expected)), "{messages:?}");
}
