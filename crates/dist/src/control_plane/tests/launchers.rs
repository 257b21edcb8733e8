//! Rendezvous by the variables of each launcher.

use std::collections::BTreeMap;

use super::*;
use crate::rank_info::RankInfo;

type Variables = BTreeMap<&'static str, String>;

/// The variables that a launcher sets for each of `world_size` ranks, with the rendezvous at `port`.
fn variables(world_size: usize, port: u16, of_rank: impl Fn(usize) -> Variables) -> Vec<Variables> {
    let rendezvous = [
        ("MASTER_ADDR", "localhost".to_owned()),
        ("MASTER_PORT", port.to_string()),
        ("EMBODIED_R_TOKEN", "secret".to_owned()),
    ];
    (0..world_size)
        .map(|rank| of_rank(rank).into_iter().chain(rendezvous.clone()).collect())
        .collect()
}

/// A rank with these variables joins, receives rank 0's broadcast, and finishes.
fn run_rank(variables: &Variables) -> (usize, Vec<u8>) {
    let lookup = |name: &str| variables.get(name).cloned();
    let rank_info = RankInfo::from_env(lookup).unwrap();
    let rendezvous = Rendezvous::from_env(lookup).unwrap();
    let listener = (rank_info.rank == 0).then(|| listen(rendezvous.address).unwrap());
    let rank_state = Arc::new(RankState::new(rank_info.rank, &rank_info.host));
    let (size, options) = (rank_info.world_size, CommunicatorOptions::default());
    let client =
        Client::join(&rendezvous, listener, size, &rank_info.host, &options, rank_state).unwrap();
    let id = client.broadcast(vec![rank_info.rank as u8 + 7; 128], LONG).unwrap();
    client.finish(LONG).unwrap();
    (rank_info.rank, id)
}

fn run_ranks(variables: Vec<Variables>) {
    let ranks: Vec<_> = variables
        .into_iter()
        .map(|variables| thread::spawn(move || run_rank(&variables)))
        .collect();
    for (rank, thread) in ranks.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), (rank, vec![7; 128]));
    }
}

/// A free port whose successor is free too.
fn free_port() -> u16 {
    loop {
        let first = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap().local_addr().unwrap().port();
        if first < u16::MAX && listen((Ipv4Addr::LOCALHOST, first + 1).into()).is_ok() {
            return first;
        }
    }
}

#[test]
fn ranks_of_torchrun_join_beside_its_own_store() {
    let port = free_port();
    // The port on which torchrun itself listens.
    let _store = listen((Ipv4Addr::LOCALHOST, port).into()).unwrap();
    run_ranks(variables(2, port, |rank| {
        let rank = rank.to_string();
        Variables::from([
            ("RANK", rank.clone()),
            ("WORLD_SIZE", "2".into()),
            ("LOCAL_RANK", rank),
            ("LOCAL_WORLD_SIZE", "2".into()),
            ("TORCHELASTIC_USE_AGENT_STORE", "True".into()),
        ])
    }));
}

#[test]
fn pods_of_an_indexed_job_join_by_their_index() {
    run_ranks(variables(3, free_port(), |rank| {
        Variables::from([("RANK", rank.to_string()), ("WORLD_SIZE", "3".into())])
    }));
}

#[test]
fn slurm_tasks_join() {
    run_ranks(variables(3, free_port(), |rank| {
        Variables::from([
            ("SLURM_STEP_ID", "0".into()),
            ("SLURM_PROCID", rank.to_string()),
            ("SLURM_STEP_NUM_TASKS", "3".into()),
            ("SLURM_LOCALID", (rank % 2).to_string()),
            ("SLURM_NODEID", (rank / 2).to_string()),
            ("SLURM_STEP_TASKS_PER_NODE", "2,1".into()),
        ])
    }));
}
