//! `embodied-r train`, as its users run it.

mod tiny_model;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_data::parquet::Table;
use embodied_r_policy::Policy;
use embodied_r_tests::{binary, write_lamp_questions};
use serde_json::{Value, json};

/// A run's inputs in `dir`: a model, eight questions, and settings for four steps.
fn inputs(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    write_lamp_questions(dir, 8);
    fs::write(
        dir.join("run.toml"),
        "num_generations = 4
generation_batch_size = 8
max_completion_length = 6
learning_rate = 1e-3
warmup_ratio = 0.0
num_train_epochs = 1
reward_weights = { accuracy = 0.5, format = 0.5 }
save_steps = 2
",
    )
    .unwrap();
}

fn train(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["train", "--config", "run.toml", "--model", "model"]);
    command.args(["--data", "train.json", "--output", "run"]);
    command
}

fn stderr(command: &mut Command, code: i32) -> String {
    let output = command.assert().code(code).get_output().clone();
    String::from_utf8(output.stderr).unwrap()
}

fn events(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("events.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_dry_run_prints_the_batch_arithmetic_and_the_stages_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let output = train(dir.path()).arg("--dry-run").assert().code(0).get_output().clone();
    let told = String::from_utf8(output.stdout).unwrap();
    let (memory, rest): (Vec<&str>, Vec<&str>) =
        told.split_inclusive('\n').partition(|line| line.starts_with("memory "));
    assert!(
        memory[0].contains("about 0.1")
            && memory[0].contains("1 layer of the rollout not computed again"),
        "{}",
        memory[0]
    );
    assert_eq!(
        rest.concat(),
        "\
model        model
trainable    9040 of 9040 parameters (100.00 %)
questions    8 given, 0 too long, 8 left
step         8 completions = 2 questions x 4 completions each
epoch        4 steps = 8 questions / 2, 0 left over
run          4 steps of 1 optimiser step, 32 completions of at most 6 tokens
warm-up      0 steps to 1e-3, then cosine
micro-batch  at most 2048 tokens, each prompt once; behind one of more than half as many as it has
reference    for the divergence (beta 0.001)
stage 1      steps 1 to 4, 1 epochs: accuracy 0.5, format 0.5
checkpoints  every 2 steps, the last 3 kept, in run
"
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_run_leaves_events_completions_settings_and_a_model_that_can_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    train(dir.path()).args(["--eval-data", "train.json"]).assert().code(0);
    let run = dir.path().join("run");
    let events = events(&run);
    let of_kind = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    assert_eq!([of_kind("step"), of_kind("stage"), of_kind("eval"), of_kind("end")], [4, 1, 2, 1]);
    let step = events.iter().find(|event| event["event"] == "step").unwrap();
    for metric in ["reward", "kl", "entropy", "grad_norm", "completions/mean_length", "epoch"] {
        assert!(step[metric].is_number(), "{metric} in {step}");
    }
    let table = Table::read(&run.join("completions/completions_00004.parquet")).unwrap();
    assert_eq!(table.len(), 8);
    assert!(table.strings("prompt").unwrap()[0].contains("where is the lamp?"));
    for folder in ["final", "checkpoint-4"] {
        Policy::load(&run.join(folder)).unwrap();
        assert!(run.join(folder).join("tokenizer.json").exists());
    }
    let settings = fs::read_to_string(run.join("checkpoint-4/settings.toml")).unwrap();
    assert!(settings.contains("learning_rate = 0.001"), "{settings}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_to_the_same_model_byte_for_byte() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    inputs(whole.path());
    inputs(cut.path());
    let longer = ["--set", "num_train_epochs=20"];
    train(whole.path()).args(longer).assert().code(0);

    let mut child = train(cut.path())
        .args(longer)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step 3/80")));
    Command::new("kill").args(["-INT", &child.id().to_string()]).assert().success();
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("go on with `embodied-r train --resume run`"), "{told}");
    assert!(!cut.path().join("run/final").exists(), "the run was stopped");

    let resume = ["train", "--resume", "run"];
    Command::new(binary()).current_dir(cut.path()).args(resume).assert().code(0);
    for file in ["final/model.safetensors", "checkpoint-80/optimizer.safetensors"] {
        let read = |dir: &Path| fs::read(dir.join("run").join(file)).unwrap();
        assert!(read(whole.path()) == read(cut.path()), "{file}");
    }
    let rewards = |dir: &Path| -> Vec<Value> {
        let steps = events(&dir.join("run"));
        steps.iter().filter(|e| e["event"] == "step").map(|e| e["reward"].clone()).collect()
    };
    assert_eq!(rewards(whole.path()), rewards(cut.path()));
}

#[test]
fn wrong_settings_are_all_told_with_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let mut command = train(dir.path());
    command.args(["--set", "learning_rat=1", "--set", "generation_batch_size=6"]);
    assert_eq!(
        stderr(&mut command, 2),
        "error: 2 wrong settings:
  - there is no setting `learning_rat`; did you mean `learning_rate`? (in `--set learning_rat=1`)
  - `generation_batch_size` is 6, must be a multiple of `num_generations` = 4; take 4 or 8
"
    );
}

#[test]
fn an_output_folder_with_a_run_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    train(dir.path()).assert().code(0);
    let model = dir.path().join("run/final/model.safetensors");
    let before = fs::read(&model).unwrap();
    let completions = || fs::read_dir(dir.path().join("run/completions")).unwrap().count();
    assert_eq!(completions(), 4);
    assert_eq!(
        stderr(&mut train(dir.path()), 1),
        "error: `run` holds checkpoints of an earlier run
hint: `--resume` goes on with it; another `--output` begins anew
"
    );
    assert_eq!(fs::read(&model).unwrap(), before);
    assert_eq!(completions(), 4);
}

#[test]
fn too_few_questions_are_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let mut command = train(dir.path());
    command.args(["--set", "generation_batch_size=64"]);
    assert_eq!(
        stderr(&mut command, 1),
        "error: 8 questions are left of 8, one step takes 16
hint: lower `generation_batch_size`, or raise `max_prompt_length` if questions were left out
"
    );
}

#[test]
fn a_run_does_not_go_on_with_another_model() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    train(dir.path()).assert().code(0);
    // What a kill after step 4 leaves behind, and going on from step 2 would make anew.
    fs::remove_dir_all(dir.path().join("run/checkpoint-4")).unwrap();
    let completions = || fs::read_dir(dir.path().join("run/completions")).unwrap().count();
    assert_eq!(completions(), 4);
    let config = dir.path().join("model/config.json");
    let other = fs::read_to_string(&config).unwrap().replace("10000", "20000");
    fs::write(&config, other).unwrap();
    assert_eq!(
        stderr(train(dir.path()).arg("--resume"), 1).lines().skip(1).collect::<Vec<_>>(),
        [
            "error: the model `model` is not the one that the run in `run` began with",
            "hint: give the model that it began with, or another output folder for a new run",
        ]
    );
    assert_eq!(completions(), 4, "nothing is lost");
}

#[test]
fn resuming_a_folder_without_a_checkpoint_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args(["train", "--resume", "empty"]);
    let told = stderr(&mut command, 1);
    assert!(told.starts_with("error: `empty` holds no checkpoint to resume from\n"), "{told}");
}

/// The last model of a run with some more arguments, and what it said.
fn trained(arguments: &[&str]) -> (Vec<u8>, String) {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let said = stderr(train(dir.path()).args(arguments), 0);
    (fs::read(dir.path().join("run/final/model.safetensors")).unwrap(), said)
}

#[test]
fn what_the_update_computes_again_changes_no_byte() {
    // Its forward is its own: the rollout is of another precision.
    let again = |name| trained(&["--recompute", name, "--set", "rollout_precision=bf16"]).0;
    assert!(again("all") == again("none"));
}

#[test]
fn what_the_rollout_has_computed_serves_the_update() {
    let first = |recompute: &str| {
        let dir = tempfile::tempdir().unwrap();
        inputs(dir.path());
        // A reward with a spread, and groups in parts.
        let settings = fs::read_to_string(dir.path().join("run.toml")).unwrap();
        let settings = settings.replace("format = 0.5", "format = 0.5, taste = 1.0");
        let taste = r#"
max_tokens_per_batch = 100
[[reward]]
name = "taste"
command = ["sh", "-c", "cat > all; echo '{\"rewards\": [1, 0, 3, 2, 1, 5, 0, 2]}'"]
"#;
        fs::write(dir.path().join("run.toml"), settings + taste).unwrap();
        train(dir.path()).args(["--recompute", recompute]).assert().code(0);
        let events = events(&dir.path().join("run"));
        let step = events.into_iter().find(|event| event["event"] == "step").unwrap();
        let state = fs::read(dir.path().join("run/checkpoint-4/trainer_state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        (step, state["taped_layers"].clone())
    };
    let ((own, none), (taped, all)) = (first("all"), first("none"));
    assert_eq!((none, all), (Value::Null, json!(2)));
    assert_eq!((&own["step"], &own["reward"]), (&taped["step"], &taped["reward"]));
    for metric in ["loss", "entropy", "grad_norm", "kl"] {
        let [own, taped] = [&own, &taped].map(|step| step[metric].as_f64().unwrap());
        assert!((own - taped).abs() <= 1e-4 * own.abs() + 1e-6, "{metric}: {own}, {taped}");
    }
    assert!(own["grad_norm"].as_f64().unwrap() > 1e-3);
}

#[test]
fn groups_that_are_cut_are_summed_up_in_another_order() {
    let all = trained(&["--recompute", "all"]).0;
    let cut = trained(&["--recompute", "all", "--set", "max_tokens_per_batch=60"]).0;
    assert!(cut != all);
}

#[test]
fn packed_gradients_are_verified_before_the_first_update() {
    for budget in ["max_tokens_per_batch=16384", "max_tokens_per_batch=60"] {
        let said = trained(&["--verify-packing", "--set", budget]).1;
        assert!(said.contains("step 1: packed gradients equal those"), "{budget}: {said}");
    }
}

#[test]
fn options_of_the_loss_work_together() {
    let sets = [
        "loss_type=cispo",
        "epsilon_high=5.0",
        "top_entropy_quantile=0.5",
        "use_bias_correction_kl=true",
        "advantage_estimator=gdpo",
        "sync_ref_model=true",
        "ref_model_sync_steps=2",
        "rollout_precision=bf16",
        "importance_sampling_mode=token_truncate",
        "num_iterations=2",
        "max_tokens_per_batch=60",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let (model, _) = trained(&sets);
    assert!(model != trained(&[]).0);
    assert!(model == trained(&sets).0, "the same twice");
}

#[test]
#[cfg(not(feature = "mpi"))]
fn several_ranks_want_a_program_with_mpi() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let told = stderr(train(dir.path()).args(["--ranks", "2"]), 1);
    assert!(told.contains("built without MPI") && told.contains("--features mpi"), "{told}");
    let told = stderr(train(dir.path()).args(["--ranks", "2"]).env("RANK", "0"), 2);
    assert!(told.contains("WORLD_SIZE"), "{told}");
    let torchrun =
        [("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")];
    let told = stderr(train(dir.path()).envs(torchrun), 2);
    assert!(told.contains("mpirun -n N"), "{told}");
    assert!(!dir.path().join("run").exists());
    // One process is one process, whoever started it.
    let alone =
        [("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")];
    train(dir.path()).envs(alone).arg("--dry-run").assert().code(0);
}
