use super::*;

fn rank_info(variables: &[(&str, &str)]) -> Result<RankInfo> {
    RankInfo::from_env(|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn message(variables: &[(&str, &str)]) -> String {
    rank_info(variables).unwrap_err().to_string()
}

fn values(rank_info: &RankInfo) -> [usize; 4] {
    [rank_info.rank, rank_info.world_size, rank_info.local_rank, rank_info.local_size]
}

const TORCHRUN: &[(&str, &str)] =
    &[("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")];

const MPI: &[(&str, &str)] = &[
    ("OMPI_COMM_WORLD_RANK", "3"),
    ("OMPI_COMM_WORLD_SIZE", "4"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
    ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
];

const SLURM: &[(&str, &str)] = &[
    ("SLURM_STEP_ID", "0"),
    ("SLURM_PROCID", "6"),
    ("SLURM_NTASKS", "7"),
    ("SLURM_LOCALID", "0"),
    ("SLURM_NODEID", "3"),
    ("SLURM_TASKS_PER_NODE", "2(x3),1"),
];

#[test]
fn without_variables_the_process_is_standalone() {
    assert_eq!(rank_info(&[]).unwrap(), RankInfo::standalone());
}

#[test]
fn each_launcher_is_read() {
    let read = |variables| rank_info(variables).unwrap();
    assert_eq!(values(&read(TORCHRUN)), [5, 8, 1, 4]);
    assert_eq!(read(TORCHRUN).launcher, Launcher::Torchrun);
    assert_eq!(values(&read(MPI)), [3, 4, 1, 2]);
    assert_eq!(read(MPI).launcher, Launcher::OpenMpi);
    assert_eq!(values(&read(SLURM)), [6, 7, 0, 1]);
    assert_eq!(read(SLURM).launcher, Launcher::Slurm);
}

#[test]
fn one_process_per_machine_needs_no_local_rank() {
    let rank_info = rank_info(&[("RANK", "1"), ("WORLD_SIZE", "2")]).unwrap();
    assert_eq!(values(&rank_info), [1, 2, 0, 1]);
}

#[test]
fn torchrun_and_mpirun_take_precedence_over_slurm() {
    assert_eq!(values(&rank_info(&[MPI, SLURM].concat()).unwrap()), [3, 4, 1, 2]);
    assert_eq!(values(&rank_info(&[TORCHRUN, SLURM].concat()).unwrap()), [5, 8, 1, 4]);
}

#[test]
fn a_slurm_batch_script_is_not_a_rank() {
    assert_eq!(rank_info(&SLURM[1..]).unwrap(), RankInfo::standalone());
}

#[test]
fn launchers_that_contradict_each_other_are_named() {
    assert_eq!(
        message(&[TORCHRUN, MPI].concat()),
        "`RANK` is `5`, but `OMPI_COMM_WORLD_RANK` is `3`; unset the variables of the launcher that \
         did not start this process"
    );
}

#[test]
fn a_rank_without_a_world_size_is_refused() {
    assert_eq!(
        message(&[("RANK", "0")]),
        "`WORLD_SIZE` is not set, but `RANK` is; set both, or neither for a single process"
    );
    assert_eq!(
        message(&[("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")]),
        "`LOCAL_WORLD_SIZE` is not set, but `LOCAL_RANK` is; set both, or neither for a single process"
    );
}

#[test]
fn an_invalid_variable_is_named() {
    assert_eq!(
        message(&[("RANK", "-1"), ("WORLD_SIZE", "2")]),
        "`RANK` is `-1`, which is not a non-negative integer; let the launcher set it"
    );
    assert_eq!(
        message(&[("RANK", "2"), ("WORLD_SIZE", "2")]),
        "`RANK` is `2`, but must be below `WORLD_SIZE` = 2; start the ranks with `mpirun`, \
         `srun` or `torchrun`"
    );
    let local_size_above_world_size = message(&[
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "0"),
        ("LOCAL_WORLD_SIZE", "4"),
    ]);
    assert!(local_size_above_world_size.starts_with("`WORLD_SIZE` is `2`, but there are 4 ranks"));
}
