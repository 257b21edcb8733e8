//! `embodied-r train`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_data::parquet::Table;
use embodied_r_policy::{ModelType, Policy};
use embodied_r_tests::small_run::train;
use embodied_r_tests::{binary, events, small_run, stderr_of, stdout_of, tiny_model};
use serde_json::{Value, json};

/// The inputs of a run.
fn inputs(dir: &Path) {
    small_run::write(
        dir,
        "learning_rate = 1e-3
warmup_ratio = 0.0
num_train_epochs = 1
reward_weights = { accuracy = 0.5, format = 0.5 }
save_steps = 2
",
    );
}

#[test]
fn a_dry_run_prints_the_batch_arithmetic_and_the_stages_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stdout = stdout_of(train(dir.path()).arg("--dry-run"));
    let (memory, rest): (Vec<&str>, Vec<&str>) =
        stdout.split_inclusive('\n').partition(|line| line.starts_with("memory "));
    assert!(
        memory[0].contains("about 0.1")
            && memory[0].contains("rollout activations of 1 layer reused"),
        "{}",
        memory[0]
    );
    assert_eq!(
        rest.concat(),
        "\
model        model
trainable    9040 of 9040 parameters (100.00 %)
questions    8 in total, 0 too long, 8 used
step         8 completions = 2 questions x 4 completions
epoch        4 steps = 8 questions / 2, 0 dropped
run          4 steps x 1 optimizer step, 32 completions of at most 6 tokens
warmup       0 steps to 1e-3, then cosine
micro-batch  at most 2048 tokens, shared prompts counted once; for a prompt over 1024 tokens, twice its length
reference    for the KL term (beta 0.001)
stage 1      steps 1 to 4, 1 epochs: accuracy 0.5, format 0.5
checkpoints  every 2 steps, keeps the last 3, in run
"
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_run_saves_events_completions_settings_and_a_loadable_model() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    train(dir.path()).args(["--eval-data", "train.json"]).assert().code(0);
    let run = dir.path().join("run");
    let counts = ["step", "stage", "eval", "end"].map(|kind| events(&run, kind).len());
    assert_eq!(counts, [4, 1, 2, 1]);
    let step = events(&run, "step").remove(0);
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
fn an_interrupted_run_resumes_bit_identically() {
    tiny_model::FAMILIES.into_iter().for_each(resumes_bit_identically);
}

#[cfg(unix)]
fn resumes_bit_identically(family: ModelType) {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [whole.path(), cut.path()] {
        inputs(dir);
        tiny_model::write_family(&dir.join("model"), family);
    }
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
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("resume with `embodied-r train --resume run`"), "{stdout}");
    assert!(!cut.path().join("run/final").exists(), "the run was not stopped");

    let resume = ["train", "--resume", "run"];
    Command::new(binary()).current_dir(cut.path()).args(resume).assert().code(0);
    for file in ["final/model.safetensors", "checkpoint-80/optimizer.safetensors"] {
        let read = |dir: &Path| fs::read(dir.join("run").join(file)).unwrap();
        assert!(read(whole.path()) == read(cut.path()), "{family:?}: {file}");
    }
    let rewards = |dir: &Path| -> Vec<Value> {
        events(&dir.join("run"), "step").iter().map(|step| step["reward"].clone()).collect()
    };
    assert_eq!(rewards(whole.path()), rewards(cut.path()));
}

#[test]
fn all_wrong_settings_are_reported_with_suggestions() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let mut command = train(dir.path());
    command.args(["--set", "learning_rat=1", "--set", "generation_batch_size=6"]);
    assert_eq!(
        stderr_of(&mut command, 2),
        "error: 2 invalid settings:
  - unknown setting `learning_rat`; did you mean `learning_rate`? (in `--set learning_rat=1`)
  - `generation_batch_size`: must be a multiple of `num_generations` = 4, not 6; try 4 or 8
"
    );
}

#[test]
fn an_output_folder_with_a_run_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    train(dir.path()).assert().code(0);
    let model = dir.path().join("run/final/model.safetensors");
    let before = fs::read(&model).unwrap();
    let completions = || fs::read_dir(dir.path().join("run/completions")).unwrap().count();
    assert_eq!(completions(), 4);
    assert_eq!(
        stderr_of(&mut train(dir.path()), 1),
        "error: `run` contains checkpoints of an earlier run
hint: `--resume` continues it; another `--output` starts a new run
"
    );
    assert_eq!(fs::read(&model).unwrap(), before);
    assert_eq!(completions(), 4);
}

#[test]
fn too_few_questions_are_reported_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let mut command = train(dir.path());
    command.args(["--set", "generation_batch_size=64"]);
    assert_eq!(
        stderr_of(&mut command, 1),
        "error: 8 of 8 questions are within the length limit, but a step needs 16
hint: lower `generation_batch_size`, or raise `max_prompt_length` if questions were dropped
"
    );
}

#[test]
fn a_run_does_not_resume_with_another_model() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    train(dir.path()).assert().code(0);
    // As after a kill at step 4, before its checkpoint. A resume from step 2 would replace the later completions.
    fs::remove_dir_all(dir.path().join("run/checkpoint-4")).unwrap();
    let completions = || fs::read_dir(dir.path().join("run/completions")).unwrap().count();
    assert_eq!(completions(), 4);
    let config = dir.path().join("model/config.json");
    let other = fs::read_to_string(&config).unwrap().replace("10000", "20000");
    fs::write(&config, other).unwrap();
    assert_eq!(
        stderr_of(train(dir.path()).arg("--resume"), 1).lines().skip(1).collect::<Vec<_>>(),
        [
            "error: the model `model` is not the one that the run in `run` started from",
            "hint: give the model that it started from, or another output directory for a new run",
        ]
    );
    assert_eq!(completions(), 4, "no completions are deleted");
}

#[test]
fn resuming_a_folder_without_a_checkpoint_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args(["train", "--resume", "empty"]);
    let stderr = stderr_of(&mut command, 1);
    assert!(
        stderr.starts_with("error: `empty` contains no checkpoint to resume from\n"),
        "{stderr}"
    );
}

/// The eight questions, one of which is longer than the model's context.
fn with_a_long_question(dir: &Path) {
    inputs(dir);
    let mut questions: Value =
        serde_json::from_slice(&fs::read(dir.join("train.json")).unwrap()).unwrap();
    questions[3]["question"] = "where is the lamp? ".repeat(300).into();
    fs::write(dir.join("train.json"), questions.to_string()).unwrap();
    tiny_model::set_context_length(&dir.join("model"), 2048);
}

#[test]
fn questions_over_the_models_context_are_left_out_when_the_data_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    with_a_long_question(dir.path());
    let stdout = stdout_of(train(dir.path()).arg("--dry-run"));
    assert!(stdout.contains("questions    8 in total, 1 too long, 7 used"), "{stdout}");
    // Several epochs, so that every question is drawn.
    let mut command = train(dir.path());
    command.args(["--eval-data", "train.json", "--set", "num_train_epochs=3"]);
    let stderr = stderr_of(&mut command, 0);
    for what in ["training", "evaluation"] {
        let warning = format!(
            "warning: dropped 1 {what} questions whose prompts exceed 2047 tokens (the model's context length, 2048, \
             less a token to generate)"
        );
        assert!(stderr.contains(&warning), "{stderr}");
    }
}

#[test]
fn truncation_strategy_raise_refuses_too_long_questions() {
    let dir = tempfile::tempdir().unwrap();
    with_a_long_question(dir.path());
    for dry_run in [&[][..], &["--dry-run"]] {
        let mut command = train(dir.path());
        command.args(["--set", "truncation_strategy=raise"]).args(dry_run);
        let stderr = stderr_of(&mut command, 2);
        assert!(stderr.contains("error: the prompt of question `3` has "), "{stderr}");
        assert!(stderr.contains("`truncation_strategy = \"delete\"`"), "{stderr}");
    }
    assert!(!dir.path().join("run").exists());
}

/// The final model of a run with these further arguments, and its standard error.
fn trained(arguments: &[&str]) -> (Vec<u8>, String) {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stderr = stderr_of(train(dir.path()).args(arguments), 0);
    (fs::read(dir.path().join("run/final/model.safetensors")).unwrap(), stderr)
}

#[test]
fn activation_recomputation_is_bit_identical() {
    // With another rollout precision, the update has its own forward pass.
    let model = |policy| trained(&["--recompute", policy, "--set", "rollout_precision=bf16"]).0;
    assert!(model("all") == model("none"));
}

#[test]
fn the_update_reuses_the_rollouts_activations() {
    let first_step = |recompute: &str| {
        let dir = tempfile::tempdir().unwrap();
        inputs(dir.path());
        // A reward with variance, and groups split over micro-batches.
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
        let step = events(&dir.path().join("run"), "step").remove(0);
        let state = fs::read(dir.path().join("run/checkpoint-4/trainer_state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        (step, state["taped_layers"].clone())
    };
    let ((recomputed, none), (reused, all)) = (first_step("all"), first_step("none"));
    assert_eq!((none, all), (Value::Null, json!(2)));
    assert_eq!((&recomputed["step"], &recomputed["reward"]), (&reused["step"], &reused["reward"]));
    for metric in ["loss", "entropy", "grad_norm", "kl"] {
        let [a, b] = [&recomputed, &reused].map(|step| step[metric].as_f64().unwrap());
        assert!((a - b).abs() <= 1e-4 * a.abs() + 1e-6, "{metric}: {a}, {b}");
    }
    assert!(recomputed["grad_norm"].as_f64().unwrap() > 1e-3);
}

#[test]
fn split_groups_sum_their_gradients_in_another_order() {
    let all = trained(&["--recompute", "all"]).0;
    let split = trained(&["--recompute", "all", "--set", "max_tokens_per_batch=60"]).0;
    assert!(split != all);
}

#[test]
fn packed_gradients_are_verified_before_the_first_update() {
    for budget in ["max_tokens_per_batch=16384", "max_tokens_per_batch=60"] {
        let stderr = trained(&["--verify-packing", "--set", budget]).1;
        assert!(stderr.contains("step 1: packed gradients match"), "{budget}: {stderr}");
    }
}

#[test]
fn loss_options_can_be_combined() {
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
    assert!(model == trained(&sets).0, "the run is not reproducible");
}

#[test]
fn reinforce_plus_plus_trains_in_mini_batches_on_one_completion_per_question() {
    let sets = [
        "advantage_estimator=reinforce_plus_plus",
        "num_generations=1",
        "generation_batch_size=4",
        "num_mini_batches=2",
        "loss_type=dapo",
        "epsilon_high=0.3",
        "delta=3",
        "format=r1v",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let (model, warnings) = trained(&sets);
    assert!(warnings.contains("a step has 2 optimizer steps"), "{warnings}");
    assert!(model != trained(&sets[..6]).0, "the mini-batches change the run");
    assert!(model == trained(&sets).0, "the run is not reproducible");
}

#[test]
fn a_reward_for_positions_refuses_other_answers_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let weights = ["--set", "reward_weights={ waypoint_distance = 1.0, format = 1.0 }"];
    let stderr = stderr_of(train(dir.path()).args(weights), 1);
    assert!(
        stderr.contains("question `0` has the `answer` `A`, which is no position `[x, y, z]`"),
        "{stderr}"
    );
    assert!(!dir.path().join("run").exists());
    let path = dir.path().join("train.json");
    let mut questions: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for question in &mut questions {
        question["answer"] = json!("[0.254, -0.197, 0.894]");
    }
    fs::write(&path, serde_json::to_string(&questions).unwrap()).unwrap();
    train(dir.path()).args(weights).assert().code(0);
    let steps = events(&dir.path().join("run"), "step");
    assert!(steps[0]["rewards/waypoint_distance/mean"].is_number(), "{}", steps[0]);
}

#[test]
fn ranks_of_another_launcher_need_its_variables_and_mpi() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stderr = stderr_of(train(dir.path()).args(["--ranks", "2"]).env("RANK", "0"), 2);
    assert!(stderr.contains("WORLD_SIZE"), "{stderr}");
    let torchrun =
        [("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")];
    let stderr = stderr_of(train(dir.path()).envs(torchrun), 2);
    assert!(stderr.contains("mpirun -n N"), "{stderr}");
    assert!(!dir.path().join("run").exists());
    // A single process needs no MPI under any launcher.
    let alone =
        [("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")];
    train(dir.path()).envs(alone).arg("--dry-run").assert().code(0);
}
