//! The CUDA build on the stub CUDA driver (`tests/stub_cuda`): host code runs as on a real GPU, but kernels and matrix
//! products leave their outputs unchanged.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use embodied_r_tests::{VisionModel, binary, tiny_run};
use serde_json::Value;
use tempfile::TempDir;

#[path = "stub_cuda/nccl.rs"]
mod nccl;

/// A machine with stub GPUs, set up in the environment by `scripts/stub_cuda.sh`, and a working folder.
struct Machine {
    dir: TempDir,
}

/// The result of a command.
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

    /// The program with these arguments.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("STUB_CUDA_FOLDER", self.dir.path())
            .env("STUB_CUDA_COUNTERS", self.path("counters"))
            .env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs the program with these arguments.
    fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }

    /// [`Self::run`], which must succeed; returns stdout and stderr.
    fn succeeds(&self, args: &[&str]) -> String {
        let Ended { code, out, error } = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{error}");
        out + &error
    }

    /// The stub's counters of all processes so far.
    fn counters(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("counters")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The numbers of allocations and frees on all GPUs so far.
    fn allocations(&self) -> (i64, i64) {
        self.counters().iter().fold((0, 0), |(allocations, frees), process| {
            let number = |name: &str| process[name].as_i64().unwrap();
            (allocations + number("allocations"), frees + number("frees"))
        })
    }

    /// The kernels of each process so far whose symbol contains `name`: how often they were launched, and how often
    /// their limit of shared memory was set.
    fn kernels(&self, name: &str) -> Vec<(i64, i64)> {
        let mut found = Vec::new();
        for process in self.counters() {
            for kernel in process["kernels"].as_array().unwrap() {
                if kernel[0].as_str().unwrap().contains(name) {
                    found.push((kernel[1].as_i64().unwrap(), kernel[2].as_i64().unwrap()));
                }
            }
        }
        found
    }

    /// How often kernels whose symbol contains `name` were launched so far.
    fn launches(&self, name: &str) -> i64 {
        self.kernels(name).iter().map(|(launches, _)| launches).sum()
    }
}

/// The arguments of a training run with a tiny model.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "--config", "run.toml", "--model", "model", "--no-pin"];
    args.extend(["--data", "train.json", "--output", "run"]);
    // All completions are identical, so every group has zero variance.
    args.extend(["--set", "dynamic_sample=false"]);
    args.extend(more);
    args
}

#[test]
fn doctor_finds_the_gpu_and_its_libraries() {
    let output = Machine::new().succeeds(&["doctor"]);
    assert!(output.contains("NVIDIA H100 80GB HBM3, 80.0 GiB, compute capability 9.0"), "{output}");
    assert!(output.contains("all-reduce on one rank works"), "{output}");
}

#[test]
fn every_operation_is_launched() {
    let machine = Machine::new();
    let Ended { code, out, error } = machine.run(&["bench", "ops", "--check", "--device", "cuda"]);
    // The results are wrong because kernels do not run.
    assert_eq!((code, error.contains("error:")), (Some(1), false), "{error}");
    for (operation, kernel) in [
        ("rms_norm", "rms_norm_kernel"),
        ("qkv", "qkv_kernel"),
        ("qkv", "qkv_norm_kernel"),
        ("head_norm", "rms_norm_kernel"),
        // The stub's cuBLASLt has no algorithm for bf16 rows with an odd stride.
        ("linear", "strided_copy_kernel"),
        ("weight", "block_tile_kernel"),
        ("attention", "attention_softmax_kernel"),
        ("paged_attention", "paged_attention_kernel"),
        ("lm_head", "lm_head_score_kernel"),
        ("adamw", "adamw_kernel"),
        ("sample", "truncate_count_kernel"),
    ] {
        let has = |line: &str| line.starts_with(operation);
        assert!(out.lines().any(has), "no `{operation}`: {out}");
        assert!(machine.launches(kernel) > 0, "`{operation}` never launched `{kernel}`");
    }
}

#[test]
fn the_shared_memory_limit_of_a_kernel_is_set_once() {
    let machine = Machine::new();
    machine.run(&["bench", "ops", "--check", "--device", "cuda", "--only", "paged_attention"]);
    let kernels = machine.kernels("paged_attention_mma_kernel");
    assert!(kernels.iter().any(|(launches, _)| *launches > 1), "{kernels:?}");
    assert!(kernels.iter().all(|(_, limits)| *limits == 1), "{kernels:?}");
}

#[test]
fn every_operation_is_timed() {
    let machine = Machine::new();
    let Ended { code, out, error } =
        machine.run(&["bench", "ops", "--device", "cuda", "--json", "--only", "rms_norm"]);
    assert_eq!(code, Some(0), "{error}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["machine"]["device"], "NVIDIA H100 80GB HBM3");
    let ops = report["ops"].as_array().unwrap();
    assert_eq!(ops.len(), 2, "{out}");
    for op in ops {
        // The stub's clock gives a microsecond for any work.
        assert!(op["seconds"].as_f64().is_some_and(|seconds| seconds <= 1e-6), "{op}");
        for field in ["name", "shape", "dtype", "bound"] {
            assert!(op[field].is_string(), "{op}");
        }
        for field in ["gb_per_s", "share_of_limit"] {
            assert!(op[field].is_number(), "{op}");
        }
    }
}

#[test]
fn the_check_of_a_machine_finishes_every_step() {
    let machine = Machine::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/gpu_check.sh");
    let output = Command::new(script)
        .args(["--small", "--preset", "tiny-qwen2", "--out", "checked", "--program"])
        .arg(binary())
        .current_dir(machine.dir.path())
        .env("STUB_CUDA_FOLDER", machine.dir.path())
        .output()
        .unwrap();
    let Ended { code, out, error } = Ended::of(output);
    // Kernels do not run, so that results are wrong.
    assert_eq!(code, Some(1), "{out}{error}");
    let facts = fs::read_to_string(machine.path("checked/facts.jsonl")).unwrap();
    let facts: Vec<Value> = facts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys = ["step", "fact", "value", "unit", "ok", "seconds"];
    for fact in &facts {
        assert!(fact.as_object().unwrap().keys().eq(keys), "{fact}");
    }
    let list = Command::new(script).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let found = |step: &str, name: &str| {
        facts.iter().find(|fact| fact["step"] == step && fact["fact"] == name)
    };
    for step in list.lines().map(|line| line.split(' ').next().unwrap()) {
        let finished = found(step, "finished").unwrap_or_else(|| panic!("no end of {step}: {out}"));
        assert_eq!(finished["ok"], true, "{step}: {out}{error}");
    }
    for (step, fact, unit) in [
        ("setup", "libcublasLt.so.13", ""),
        ("latency", "launch, host", "µs"),
        ("latency", "event query, device", "µs"),
        ("compare", "36 layers, bfloat16, update, relative difference of its effect", "at most"),
        ("decode", "batch 64", "tokens/s"),
        ("decode", "batch 8, launches, device", "ms"),
        ("decode", "prefill of 96", "tokens/s"),
        ("grpo", "step 1, update, peak memory", "GB"),
        ("vision", "tower_frames_per_s", ""),
        // The stub has four GPUs.
        ("scaling", "step_s", ""),
        ("all-reduce", "1048576 bytes, bus bandwidth", "GB/s"),
        ("resume", "exit code of the resumed run", ""),
    ] {
        let found = found(step, fact).unwrap_or_else(|| panic!("no `{fact}` of {step}: {out}"));
        assert!(found["unit"].as_str().unwrap().starts_with(unit), "{found}");
    }
    for side in ["host", "device"] {
        let named = |fact: &Value| {
            let name = fact["fact"].as_str().unwrap();
            name.starts_with("batch 8, ") && name.ends_with(&format!("× er_rms_norm, {side}"))
        };
        assert!(facts.iter().any(|fact| fact["step"] == "decode" && named(fact)), "{side}: {out}");
    }
    assert_eq!(found("resume", "exit code of the resumed run").unwrap()["ok"], true, "{out}");
    // The model of both steps is created once.
    assert!(found("decode", "creating the model").is_some());
    assert!(found("grpo", "creating the model").is_none());
}

#[test]
fn gpu_memory_is_freed() {
    let machine = Machine::new();
    machine.succeeds(&["bench", "make-model", "--preset", "tiny-qwen2", "model"]);
    let sizes =
        ["--prompt", "70", "--new", "9", "--groups", "2", "--group-size", "3", "--runs", "1"];
    for work in ["generate", "grpo"] {
        let args = ["bench", work, "--model", "model", "--device", "cuda", "--precision", "bf16"];
        machine.succeeds(&[&args[..], &sizes].concat());
    }
    let (allocations, frees) = machine.allocations();
    // A process keeps its cuBLASLt workspace until it exits.
    assert!(allocations > 1000 && allocations - frees <= 2, "{allocations} {frees}");
}

#[test]
fn a_gpu_without_memory_pools_works() {
    let machine = Machine::new();
    machine.succeeds(&["bench", "make-model", "--preset", "tiny-qwen2", "model"]);
    let mut args = vec!["bench", "grpo", "--model", "model", "--device", "cuda", "--prompt", "9"];
    args.extend(["--new", "3", "--groups", "1", "--group-size", "2", "--runs", "1"]);
    let run = |pools: bool| {
        let mut command = machine.command(&args);
        if !pools {
            command.env("STUB_CUDA_NO_POOLS", "1");
        }
        let Ended { code, out, error } = Ended::of(command.output().unwrap());
        assert_eq!(code, Some(0), "{error}");
        out.contains("peak_device_memory_gb")
    };
    assert!(run(true));
    // Without a pool the driver counts no peak.
    assert!(!run(false));
}

#[test]
fn a_prompt_longer_than_a_steps_budget_is_prefilled() {
    let machine = Machine::new();
    machine.succeeds(&["bench", "make-model", "--preset", "tiny-qwen2", "model"]);
    // The first step computes no logits: its last tensors have no rows, and CUDA cannot allocate 0 bytes.
    let mut args = vec!["bench", "generate", "--model", "model", "--device", "cuda", "--runs", "1"];
    args.extend(["--prompt", "2100", "--new", "2", "--groups", "1", "--group-size", "1"]);
    for precision in ["f32", "bf16"] {
        machine.succeeds(&[&args[..], &["--precision", precision]].concat());
    }
}

#[test]
fn waiting_for_a_collective_queues_nothing_behind_it() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let mut command = machine.command(&train(&["--gpus", "2", "--precision", "bf16"]));
    // More polls than the stub's launch queue has room for events.
    let Ended { code, out, error } =
        Ended::of(command.env("STUB_CUDA_BUSY", "1100").output().unwrap());
    assert_eq!(code, Some(0), "{out}{error}");
}

#[test]
fn the_quickstart_runs_end_to_end() {
    const STAGES: &str = "stage=[{steps = 1, weights = {format = 0.7, accuracy = 0.3}}, \
                          {steps = 1, weights = {format = 0.1, accuracy = 0.7, consistency = 0.2}}]";
    let machine = Machine::new();
    let mut args = vec!["quickstart", "--rooms", "10", "--device", "cuda", "--precision", "bf16"];
    args.extend(["--sft-set", "num_train_epochs=1", "--set", STAGES, "--set", "warmup_steps=0"]);
    args.extend(["--set", "generation_batch_size=32", "--out", "quickstart"]);
    let output = machine.succeeds(&args);
    assert!(output.contains("| trained |"), "{output}");
}

#[test]
fn a_run_trains_all_weights_or_an_adapter_with_any_optimizer() {
    let variants: [&[&str]; 4] = [
        &["--precision", "bf16"],
        &["--precision", "bf16", "--set", "use_peft=true"],
        &["--precision", "bf16", "--set", "optim=\"muon\""],
        &["--precision", "f32", "--set", "beta=0.01"],
    ];
    for variant in variants {
        let machine = Machine::new();
        tiny_run::write(machine.dir.path());
        let output = machine.succeeds(&train(&[&["--device", "cuda"], variant].concat()));
        assert!(output.contains("saved the model to run/final"), "{variant:?}: {output}");
    }
}

#[test]
fn ranks_train_over_nccl_and_another_number_of_ranks_resumes() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    machine.succeeds(&train(&["--gpus", "2", "--precision", "bf16"]));
    let output = machine.succeeds(&[
        "train",
        "--resume",
        "run",
        "--gpus",
        "3",
        "--set",
        "num_train_epochs=3",
    ]);
    assert!(output.contains("resuming from run/checkpoint-"), "{output}");
    assert!(output.contains("3 ranks, memory"), "{output}");
}

#[test]
fn a_killed_rank_aborts_the_run_and_a_restart_resumes() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let score = machine.path("score.sh");
    let dies_once = "if test -e run/checkpoint-2 && mkdir died; then kill -9 $PPID; fi\n";
    fs::write(&score, format!("{dies_once}{}", fs::read_to_string(&score).unwrap())).unwrap();
    let output = machine.succeeds(&train(&["--gpus", "2", "--restarts", "1"]));
    assert!(output.contains("lost its connection"), "{output}");
    assert!(output.contains("resuming from run/checkpoint-2"), "{output}");
}

/// One of two ranks, with `torchrun`'s variables and the job's secret.
fn rank_of_torchrun(machine: &Machine, rank: u32, port: u16, token: &str) -> Command {
    let mut command = machine.command(&train(&["--device", "cuda", "--precision", "bf16"]));
    let variables =
        [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_WORLD_SIZE", 2)];
    command.envs(variables.map(|(name, value)| (name, value.to_string())));
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.env("EMBODIED_R_TOKEN", token);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn ranks_of_torchrun_join_despite_unauthenticated_connections() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let ended = |rank: Child| Ended::of(rank.wait_with_output().unwrap());
    let start = |rank, token| rank_of_torchrun(&machine, rank, port, token).spawn().unwrap();
    let first = start(0, "secret");
    let mut connection = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(connection) => break connection,
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    };
    connection.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let other = ended(start(1, "another secret"));
    assert_eq!(other.code, Some(1), "{}", other.error);
    let second = ended(start(1, "secret"));
    let first = ended(first);
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{}{}", first.error, second.error);
    assert!(first.out.contains("saved the model to run/final"), "{}", first.out);
    assert!(first.error.contains("rejected an unauthenticated connection"), "{}", first.error);
}

#[test]
fn a_rendezvous_port_in_use_is_named() {
    let machine = Machine::new();
    tiny_run::write(machine.dir.path());
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut first = rank_of_torchrun(&machine, 0, port, "secret");
    let Ended { code, error, .. } = Ended::of(first.output().unwrap());
    assert_eq!(code, Some(1), "{error}");
    let expected = format!("`127.0.0.1:{port}` is already in use; choose another port");
    assert!(error.contains(&expected), "{error}");
    assert!(!machine.path("run").exists());
}

#[test]
fn images_are_captioned_by_one_gpu_and_by_two() {
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
        let mut args = vec!["bench", "caption", "--model", model, "--frames", "2", "--runs", "1"];
        args.extend(["--size", "112", "112", "--new", "3"]);
        args.extend(more);
        let output = machine.succeeds(&args);
        assert!(output.contains("prefill_tokens_per_s"), "{output}");
    }
}
