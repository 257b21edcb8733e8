use super::*;

fn place(variables: &[(&str, &str)]) -> Result<Place> {
    Place::from_env(|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn message(variables: &[(&str, &str)]) -> String {
    place(variables).unwrap_err().to_string()
}

fn numbers(place: &Place) -> [usize; 4] {
    [place.rank, place.world_size, place.local_rank, place.local_size]
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
fn nothing_set_is_a_job_of_one() {
    assert_eq!(place(&[]).unwrap(), Place::alone());
}

#[test]
fn each_launcher_is_read() {
    let read = |variables| place(variables).unwrap();
    assert_eq!(numbers(&read(TORCHRUN)), [5, 8, 1, 4]);
    assert_eq!(read(TORCHRUN).launcher, Launcher::Torchrun);
    assert_eq!(numbers(&read(MPI)), [3, 4, 1, 2]);
    assert_eq!(read(MPI).launcher, Launcher::OpenMpi);
    assert_eq!(numbers(&read(SLURM)), [6, 7, 0, 1]);
    assert_eq!(read(SLURM).launcher, Launcher::Slurm);
}

#[test]
fn one_process_a_machine_needs_no_local_numbers() {
    let place = place(&[("RANK", "1"), ("WORLD_SIZE", "2")]).unwrap();
    assert_eq!(numbers(&place), [1, 2, 0, 1]);
}

#[test]
fn who_was_started_by_slurm_alone_is_believed_before_slurm() {
    assert_eq!(numbers(&place(&[MPI, SLURM].concat()).unwrap()), [3, 4, 1, 2]);
    assert_eq!(numbers(&place(&[TORCHRUN, SLURM].concat()).unwrap()), [5, 8, 1, 4]);
}

#[test]
fn a_batch_script_is_no_rank() {
    assert_eq!(place(&SLURM[1..]).unwrap(), Place::alone());
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
fn half_a_place_is_refused() {
    assert_eq!(
        message(&[("RANK", "0")]),
        "`WORLD_SIZE` is not set, but `RANK` is; set both, or neither to run alone"
    );
    assert_eq!(
        message(&[("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")]),
        "`LOCAL_WORLD_SIZE` is not set, but `LOCAL_RANK` is; set both, or neither to run alone"
    );
}

#[test]
fn nonsense_is_named_with_its_variable() {
    assert_eq!(
        message(&[("RANK", "-1"), ("WORLD_SIZE", "2")]),
        "`RANK` is `-1`, which is not a number from 0; let the launcher set it"
    );
    assert_eq!(
        message(&[("RANK", "2"), ("WORLD_SIZE", "2")]),
        "`RANK` is `2`, but counts from 0 and `WORLD_SIZE` is 2; start the ranks with `mpirun`, \
         `srun` or `torchrun`"
    );
    let more_here_than_in_all = message(&[
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "0"),
        ("LOCAL_WORLD_SIZE", "4"),
    ]);
    assert!(more_here_than_in_all.starts_with("`WORLD_SIZE` is `2`, but there are 4 ranks"));
}
