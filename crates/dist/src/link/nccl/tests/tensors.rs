//! Tensors of a played GPU, whose memory is that of this process.

use super::*;

/// What the collectives over tensors give a rank, twice: the second time out of parts of larger tensors.
fn over_tensors(ranks: &Communicator) -> Vec<Vec<f32>> {
    let me = ranks.rank() as f32;
    let numbers: Vec<f32> = (0..12).map(|n| (n as f32 + 0.3) * (me - 0.7)).collect();
    let whole = |from| {
        let tensor = memory::tensor(numbers.clone(), 12).unwrap();
        tensor.narrow(0, from, 12 - 2 * from).unwrap()
    };
    let begun = [0, 3].map(|from| {
        let sum = ranks.sum_tensor(whole(from)).unwrap();
        let part = ranks.reduce_scatter_tensor(whole(from)).unwrap();
        let all = ranks.all_gather_tensor(whole(from)).unwrap();
        [sum, part, all, ranks.sum_tensor(memory::tensor(Vec::new(), 0).unwrap()).unwrap()]
    });
    let told = begun.into_iter().flatten().map(|pending| {
        let tensor = pending.wait().unwrap();
        tensor.to_vec1().unwrap()
    });
    let told = told.collect();
    ranks.finish().unwrap();
    told
}

#[test]
fn tensors_of_the_gpu_give_what_those_of_the_host_give_without_it() {
    let host = Communicator::threads(3, &Options::default()).unwrap();
    let (gpus, scripts) = ranks(3, LONG, || Script { underway: 2, ..Script::default() });
    assert_eq!(each(gpus, over_tensors), each(host, over_tensors));
    for script in scripts {
        // The host agrees on eight calls and the end, and sends nothing else.
        assert_eq!(lock(&script).stages, 9);
    }
}

#[test]
fn a_tensor_of_the_gpu_and_numbers_of_the_host_do_not_fit_together() {
    let (ranks, _) = ranks(2, LONG, Script::default);
    let told = each(ranks, |ranks| {
        let error = match ranks.rank() {
            0 => ranks.reduce_scatter(vec![0.0; 4]).unwrap().wait().unwrap_err(),
            _ => {
                let tensor = memory::tensor(vec![0.0; 4], 4).unwrap();
                ranks.reduce_scatter_tensor(tensor).unwrap().wait().unwrap_err()
            }
        };
        error.to_string()
    });
    let says = "rank 1 on `thread` calls something else than rank 0: reduce-scatter of length 16";
    assert!(told.iter().all(|told| told.contains(says)), "{told:?}");
}
