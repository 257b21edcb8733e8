//! NCCL is loaded when several GPUs need it.

use std::ffi::OsString;

use super::*;

/// `LD_LIBRARY_PATH` without the folder that has NCCL.
fn path_without_nccl() -> OsString {
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap();
    let others = std::env::split_paths(&path).filter(|dir| !dir.join("libnccl.so.2").exists());
    std::env::join_paths(others).unwrap()
}

#[test]
fn one_gpu_trains_without_nccl() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    for device in [&["--device", "cuda"], &["--gpus", "1"]] {
        let _ = fs::remove_dir_all(machine.path("run"));
        let args = train(&[&device[..], &["--precision", "bf16"]].concat());
        let mut command = machine.command(&args);
        let ended =
            Ended::of(command.env("LD_LIBRARY_PATH", path_without_nccl()).output().unwrap());
        assert_eq!(ended.code, Some(0), "{device:?}: {}", ended.error);
        assert!(ended.out.contains("saved the model to run/final"), "{}", ended.out);
    }
}

#[test]
fn two_gpus_without_nccl_are_refused_before_any_work() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let path = path_without_nccl();
    let mut command = machine.command(&train(&["--gpus", "2"]));
    let ended = Ended::of(command.env("LD_LIBRARY_PATH", &path).output().unwrap());
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    for part in ["cannot load NCCL", "libnccl.so.2", path.to_str().unwrap(), "nvidia-nccl-cu13"] {
        assert!(ended.error.contains(part), "no {part}: {}", ended.error);
    }
    assert!(!machine.path("run").exists());
}

#[test]
fn an_nccl_without_nonblocking_communicators_is_refused_with_its_version() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let mut command = machine.command(&train(&["--gpus", "2"]));
    let ended = Ended::of(command.env("STUB_NCCL_VERSION", "21304").output().unwrap());
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    assert!(
        ended.error.contains("it is version 2.13.4; install 2.14.0 or later"),
        "{}",
        ended.error
    );
}

#[test]
fn a_rank_of_torchrun_without_nccl_reports_it_on_all_ranks() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let ranks = [0, 1].map(|rank| {
        let mut command = rank_of_torchrun(&machine, rank, port, "secret");
        if rank == 1 {
            command.env("LD_LIBRARY_PATH", path_without_nccl());
        }
        command.spawn().unwrap()
    });
    for rank in ranks {
        let ended = Ended::of(rank.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(1), "{}", ended.error);
        assert!(ended.error.contains("cannot load NCCL"), "{}", ended.error);
    }
}

#[test]
fn doctor_names_libraries_and_versions_and_warns_of_gpus_without_nccl() {
    let machine = Machine::new();
    let output = machine.succeeds(&["doctor"]);
    let line = |name: &str| {
        let found = output.lines().find(|line| line.contains(name));
        found.unwrap_or_else(|| panic!("no {name}: {output}"))
    };
    for library in ["libcublas ", "libcublasLt ", "libcurand "] {
        assert!(line(library).contains(" 13.0.2"), "{output}");
    }
    let nccl = line("NCCL");
    assert!(nccl.contains("2.28.9, /") && nccl.contains("/libnccl.so.2; all-reduce"), "{output}");

    let mut command = machine.command(&["doctor"]);
    command.env("LD_LIBRARY_PATH", path_without_nccl());
    let several = Ended::of(command.output().unwrap());
    assert_eq!(several.code, Some(0), "{}", several.out);
    assert!(several.out.contains("-> cannot load NCCL"), "{}", several.out);
    let one = Ended::of(command.env("CUDA_VISIBLE_DEVICES", "0").output().unwrap());
    assert!(one.out.contains("not found; only several GPUs need it"), "{}", one.out);
}
