//! Stages and rewards of `embodied-r train`: exit conditions, reward commands, and resampling of
//! groups.

use std::fs;
use std::path::Path;
use std::process::Command;

use embodied_r_data::parquet::Table;
use embodied_r_tests::{binary, events, stderr_of, stdout_of, tiny_model, write_lamp_questions};

/// Scores the number of tokens of each completion, less 3; the first completion has no score.
const SCRIPT: &str = r#"#!/bin/sh
# Each list of tokens becomes a line of its own.
ids=$(sed 's/.*"completion_ids":\[\[//; s/\]\],"ids".*//; s/\],\[/\n/g')
scores=$(echo "$ids" | awk -F, 'NR > 1 { printf ", %d", NF - 3 }')
echo "{\"rewards\": [null$scores]}"
"#;

/// A run's inputs in `dir`: a model, eight questions, a reward command, and settings.
fn inputs(dir: &Path, settings: &str) {
    tiny_model::write(&dir.join("model"));
    write_lamp_questions(dir, 8);
    fs::write(dir.join("score.sh"), SCRIPT).unwrap();
    let common = "num_generations = 4\ngeneration_batch_size = 8\nmax_completion_length = 6\n\
                  learning_rate = 1e-3\nwarmup_ratio = 0.0\nsave_steps = 2\n";
    fs::write(dir.join("run.toml"), format!("{common}{settings}")).unwrap();
}

fn train(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["train", "--config", "run.toml", "--model", "model"]);
    command.args(["--data", "train.json", "--output", "run"]);
    command
}

/// Two stages with a reward command. The first stage ends after two of its four steps.
const STAGES: &str = r#"
dynamic_sample = true
soft_cache_length = 2

[[reward]]
name = "brevity"
command = ["sh", "score.sh"]

[[stage]]
epochs = 1
weights = { format = 1.0, repetition = 0.5 }
until = { metric = "completions/mean_length", above = 0, window = 2 }

[[stage]]
steps = 3
weights = { accuracy = 1.0, brevity = 0.5, soft_overlong = 0.1, cosine = 0.1 }
blend_steps = 1
"#;

#[test]
fn a_dry_run_reports_exit_conditions_and_reward_commands() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), STAGES);
    let stdout = stdout_of(train(dir.path()).arg("--dry-run"));
    let lines: Vec<&str> = stdout
        .lines()
        .filter(|line| ["stage", "reward", "resampling"].iter().any(|name| line.starts_with(name)))
        .collect();
    assert_eq!(
        lines,
        [
            "stage 1      steps 1 to 4 or earlier, 1 epochs: format 1, repetition 0.5; ends once the \
             mean of completions/mean_length over 2 steps is above 0",
            "stage 2      steps 5 or earlier to 7: accuracy 1, brevity 0.5, cosine 0.1, \
             soft_overlong 0.1; weights blended over 1 steps",
            "reward       brevity by `sh score.sh`, all completions of a step per call, timeout 60 s",
            "resampling   zero-variance groups, up to 3 times per step",
        ]
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_command_scores_the_steps_in_which_it_has_weight_and_its_scores_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), STAGES);
    let stderr = stderr_of(&mut train(dir.path()), 0);
    assert!(stderr.contains("stage 2 after step 2, since completions/mean_length is"), "{stderr}");
    let steps = events(&dir.path().join("run"), "step");
    assert_eq!(steps.len(), 7);
    let scored: Vec<bool> =
        steps.iter().map(|step| step.get("rewards/brevity/mean").is_some()).collect();
    assert_eq!(scored, [false, false, true, true, true, true, true]);
    let weights: Vec<f64> =
        steps.iter().map(|step| step["reward_weights/brevity"].as_f64().unwrap()).collect();
    assert_eq!(weights, [0.0, 0.0, 0.25, 0.5, 0.5, 0.5, 0.5]);
    assert!(steps.iter().all(|step| step["dynamic_sample/attempts"].is_number()));

    let table = Table::read(&dir.path().join("run/completions/completions_00007.parquet")).unwrap();
    let scores = table.optional_floats("brevity").unwrap();
    let lengths = table.integers("length").unwrap();
    assert!(scores.iter().filter(|score| score.is_none()).count() > 0);
    for (score, length) in scores.iter().zip(lengths).filter_map(|(s, l)| Some((s.as_ref()?, l))) {
        assert_eq!(*score, (length - 3) as f64);
    }
    assert!(table.optional_floats("repetition").unwrap().iter().all(Option::is_some));
}

#[test]
fn a_failing_command_ends_the_run_with_its_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    inputs(
        dir.path(),
        "reward_weights = { accuracy = 1.0, brevity = 0.5 }\n\
         reward = [{ name = 'brevity', command = ['sh', '-c', 'echo no model >&2; exit 7'] }]\n",
    );
    let stderr = stderr_of(&mut train(dir.path()), 1);
    assert!(
        stderr.contains(
            "error: reward `brevity` failed: `sh -c \"echo no model >&2; exit 7\"` failed with \
             exit status: 7, stderr: no model"
        ),
        "{stderr}"
    );
}

#[test]
fn all_wrong_rewards_and_stages_are_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), STAGES);
    let mut command = train(dir.path());
    command.args(["--set", "stage=[{steps = 2, weights = {brevty = 1}, blend_steps = 1}]"]);
    command.args(["--set", "reward=[{name = 'brevity', command = ['sh'], url = 'http://h'}]"]);
    let stderr = stderr_of(&mut command, 2);
    for part in [
        "`reward[0]`: `command` and `url` are mutually exclusive; set one",
        "`stage[0].weights.brevty`: unknown reward; did you mean `brevity`?",
        "`stage[0].blend_steps`: the first stage has no previous stage to blend from; remove it",
    ] {
        assert!(stderr.contains(part), "{part} in\n{stderr}");
    }
}

#[test]
fn unreachable_stages_and_missing_programs_are_reported_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), STAGES);
    let stderr = stderr_of(train(dir.path()).args(["--set", "max_steps=4", "--dry-run"]), 2);
    assert_eq!(
        stderr,
        "error: `stage[1]`: would start after step 4, but `max_steps` ends the run \
         after step 4; raise `max_steps`, shorten the earlier stages, or remove it\n"
    );
    fs::remove_file(dir.path().join("score.sh")).unwrap();
    let absent = "reward=[{name = 'brevity', command = ['./score.sh']}]";
    let stderr = stderr_of(train(dir.path()).args(["--set", absent, "--dry-run"]), 1);
    assert_eq!(
        stderr,
        "error: reward `brevity` failed: program `./score.sh` not found; check the reward's \
         `command`\n"
    );
}
