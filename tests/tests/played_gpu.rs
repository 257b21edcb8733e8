//! The build for GPUs on a GPU that is played (`tests/played_gpu`): the host's code runs as it would on a real one, and
//! kernels and products give what was there.
#![cfg(feature = "cuda")]

mod tiny_model;
mod tiny_run;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use embodied_r_tests::{VisionModel, binary};
use serde_json::Value;
use tempfile::TempDir;

/// A machine with GPUs, as `scripts/played_gpu.sh` has put it into the environment, and a folder to work in.
struct Machine {
    dir: TempDir,
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
    }
}

impl Machine {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program with these words.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(words)
            .current_dir(self.dir.path())
            .env("PLAYED_GPU_FOLDER", self.dir.path())
            .env("PLAYED_GPU_TOLD", self.path("told"))
            .env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs the program with these words.
    fn run(&self, words: &[&str]) -> Ended {
        Ended::of(self.command(words).output().unwrap())
    }

    /// As [`Self::run`], to a good end; what it told on both streams.
    fn does(&self, words: &[&str]) -> String {
        let Ended { code, out, error } = self.run(words);
        assert_eq!(code, Some(0), "{words:?}: {out}{error}");
        out + &error
    }

    /// What the GPUs of all processes so far were asked for: allocations, and those that were given back.
    fn allocations(&self) -> (i64, i64) {
        let told = fs::read_to_string(self.path("told")).unwrap();
        let processes = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        processes.fold((0, 0), |(taken, given), process| {
            let number = |name: &str| process[name].as_i64().unwrap();
            (taken + number("allocations"), given + number("frees"))
        })
    }
}

/// A run over a tiny model's questions.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["train", "--config", "run.toml", "--model", "model", "--no-pin"];
    words.extend(["--data", "train.json", "--output", "run"]);
    // All completions are alike, and score alike.
    words.extend(["--set", "dynamic_sample=false"]);
    words.extend(more);
    words
}

#[test]
fn the_gpu_is_found_with_its_libraries() {
    let told = Machine::new().does(&["doctor"]);
    assert!(told.contains("NVIDIA H100 80GB HBM3, 80.0 GiB, 9.0"), "{told}");
    assert!(told.contains("an all-reduce of one rank works"), "{told}");
}

#[test]
fn every_operation_is_launched() {
    let Ended { code, out, error } =
        Machine::new().run(&["bench", "ops", "--check", "--device", "cuda"]);
    // What comes out is wrong, as kernels do not run.
    assert_eq!((code, error.contains("error:")), (Some(1), false), "{error}");
    for operation in
        ["rms_norm", "qkv", "attention", "paged_attention", "lm_head", "adamw", "sample"]
    {
        let has = |line: &str| line.starts_with(operation);
        assert!(out.lines().any(has), "no `{operation}`: {out}");
    }
}

#[test]
fn memory_is_given_back() {
    let machine = Machine::new();
    machine.does(&["bench", "make-model", "--preset", "tiny-qwen2", "model"]);
    let sizes =
        ["--prompt", "70", "--new", "9", "--groups", "2", "--group-size", "3", "--runs", "1"];
    for work in ["generate", "grpo"] {
        let words = ["bench", work, "--model", "model", "--device", "cuda", "--precision", "bf16"];
        machine.does(&[&words[..], &sizes].concat());
    }
    let (taken, given) = machine.allocations();
    // A process keeps the workspace of its products to its end.
    assert!(taken > 1000 && taken - given <= 2, "{taken} {given}");
}

#[test]
fn the_whole_way_is_gone() {
    const STAGES: &str = "stage=[{steps = 1, weights = {format = 0.7, accuracy = 0.3}}, \
                          {steps = 1, weights = {format = 0.1, accuracy = 0.7, consistency = 0.2}}]";
    let machine = Machine::new();
    let mut words = vec!["quickstart", "--rooms", "10", "--device", "cuda", "--precision", "bf16"];
    words.extend(["--sft-set", "num_train_epochs=1", "--set", STAGES, "--set", "warmup_steps=0"]);
    words.extend(["--set", "generation_batch_size=32", "--out", "quickstart"]);
    let told = machine.does(&words);
    assert!(told.contains("| trained |"), "{told}");
}

#[test]
fn a_run_trains_all_or_an_adapter_with_any_optimiser() {
    let variants: [&[&str]; 4] = [
        &["--precision", "bf16"],
        &["--precision", "bf16", "--set", "use_peft=true"],
        &["--precision", "bf16", "--set", "optim=\"muon\""],
        &["--precision", "f32", "--set", "beta=0.01"],
    ];
    for variant in variants {
        let machine = Machine::new();
        tiny_run::write(machine.dir.path());
        let told = machine.does(&train(&[&["--device", "cuda"], variant].concat()));
        assert!(told.contains("the model is in run/final"), "{variant:?}: {told}");
    }
}

#[test]
fn ranks_train_together_over_nccl_and_others_go_on() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    machine.does(&train(&["--gpus", "2", "--precision", "bf16"]));
    let told =
        machine.does(&["train", "--resume", "run", "--gpus", "3", "--set", "num_train_epochs=3"]);
    assert!(told.contains("going on from run/checkpoint-"), "{told}");
    assert!(told.contains("3 ranks, memory"), "{told}");
}

#[test]
fn a_rank_that_is_lost_ends_the_run_and_a_restart_goes_on() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let score = machine.path("score.sh");
    let dies_once = "if test -e run/checkpoint-2 && mkdir died; then kill -9 $PPID; fi\n";
    fs::write(&score, format!("{dies_once}{}", fs::read_to_string(&score).unwrap())).unwrap();
    let told = machine.does(&train(&["--gpus", "2", "--restarts", "1"]));
    assert!(told.contains("is lost: its connection broke"), "{told}");
    assert!(told.contains("going on from run/checkpoint-2"), "{told}");
}

/// One of two ranks, with the variables that `torchrun` gives it and the job's secret.
fn rank_of_torchrun(machine: &Machine, rank: u32, port: u16, token: &str) -> Child {
    let mut command = machine.command(&train(&["--device", "cuda", "--precision", "bf16"]));
    let variables =
        [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_WORLD_SIZE", 2)];
    command.envs(variables.map(|(name, value)| (name, value.to_string())));
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.env("EMBODIED_R_TOKEN", token);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn ranks_of_torchrun_meet_although_strangers_come_first() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let ended = |rank: Child| Ended::of(rank.wait_with_output().unwrap());
    let first = rank_of_torchrun(&machine, 0, port, "secret");
    let mut stranger = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stranger) => break stranger,
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    };
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let other = ended(rank_of_torchrun(&machine, 1, port, "another secret"));
    assert_eq!(other.code, Some(1), "{}", other.error);
    let second = ended(rank_of_torchrun(&machine, 1, port, "secret"));
    let first = ended(first);
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{}{}", first.error, second.error);
    assert!(first.out.contains("the model is in run/final"), "{}", first.out);
    assert!(first.error.contains("a stranger at the rendezvous is turned away"), "{}", first.error);
}

#[test]
fn a_rendezvous_whose_port_is_taken_is_named() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let first = rank_of_torchrun(&machine, 0, port, "secret");
    let Ended { code, error, .. } = Ended::of(first.wait_with_output().unwrap());
    assert_eq!(code, Some(1), "{error}");
    let says = format!("`127.0.0.1:{port}` is taken by another program; choose another port");
    assert!(error.contains(&says), "{error}");
    assert!(!machine.path("run").exists());
}

#[test]
fn pictures_are_captioned_by_one_gpu_and_by_two() {
    let machine = Machine::new();
    VisionModel::Flat.write(&machine.path("flat"));
    VisionModel::Gguf.write(&machine.path("gguf"));
    let cases: [(&str, &[&str]); 5] = [
        ("flat", &["--device", "cuda"]),
        ("flat", &["--device", "cuda", "--precision", "bf16"]),
        ("flat", &["--device", "cuda", "--quantize", "q8_0"]),
        ("flat", &["--gpus", "2", "--tp", "2", "--precision", "bf16"]),
        ("gguf", &["--device", "cuda"]),
    ];
    for (model, more) in cases {
        let mut words = vec!["bench", "caption", "--model", model, "--frames", "2", "--runs", "1"];
        words.extend(["--size", "112", "112", "--new", "3"]);
        words.extend(more);
        let told = machine.does(&words);
        assert!(told.contains("prefill_tokens_per_s"), "{told}");
    }
}
