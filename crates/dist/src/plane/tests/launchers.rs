//! Ranks that come together by the variables of whoever started them.

use std::collections::BTreeMap;

use super::*;
use crate::place::Place;

type Variables = BTreeMap<&'static str, String>;

/// What a launcher sets for each of `world_size` ranks, where rank 0's port is `port`.
fn variables(world_size: usize, port: u16, of_rank: impl Fn(usize) -> Variables) -> Vec<Variables> {
    let meeting = [
        ("MASTER_ADDR", "localhost".to_owned()),
        ("MASTER_PORT", port.to_string()),
        ("EMBODIED_R_TOKEN", "secret".to_owned()),
    ];
    (0..world_size).map(|rank| of_rank(rank).into_iter().chain(meeting.clone()).collect()).collect()
}

/// The rank of these variables joins, learns what rank 0 hands round, and ends.
fn take_part(variables: &Variables) -> (usize, Vec<u8>) {
    let lookup = |name: &str| variables.get(name).cloned();
    let place = Place::from_env(lookup).unwrap();
    let meeting = Meeting::from_env(lookup).unwrap();
    let listener = (place.rank == 0).then(|| listen(meeting.address).unwrap());
    let watch = Arc::new(Watch::new(place.rank, &place.host));
    let (size, options) = (place.world_size, Options::default());
    let client = Client::join(&meeting, listener, size, &place.host, &options, watch).unwrap();
    let id = client.share(vec![place.rank as u8 + 7; 128], LONG).unwrap();
    client.finish(LONG).unwrap();
    (place.rank, id)
}

fn come_together(variables: Vec<Variables>) {
    let ranks: Vec<_> = variables
        .into_iter()
        .map(|variables| thread::spawn(move || take_part(&variables)))
        .collect();
    for (rank, thread) in ranks.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), (rank, vec![7; 128]));
    }
}

/// A port that is free, and so is the next one.
fn free_port() -> u16 {
    loop {
        let first = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap().local_addr().unwrap().port();
        if first < u16::MAX && listen((Ipv4Addr::LOCALHOST, first + 1).into()).is_ok() {
            return first;
        }
    }
}

#[test]
fn ranks_of_torchrun_meet_beside_its_own_store() {
    let port = free_port();
    // The port that torchrun itself listens at.
    let _store = listen((Ipv4Addr::LOCALHOST, port).into()).unwrap();
    come_together(variables(2, port, |rank| {
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
fn pods_of_an_indexed_job_meet_by_their_index() {
    come_together(variables(3, free_port(), |rank| {
        Variables::from([("RANK", rank.to_string()), ("WORLD_SIZE", "3".into())])
    }));
}

#[test]
fn tasks_of_slurm_meet() {
    come_together(variables(3, free_port(), |rank| {
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
