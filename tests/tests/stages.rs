//! Stages and rewards of `embodied-r train` from outside: early ends, commands as rewards, and
//! groups that are sampled again.

mod tiny_model;

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_data::parquet::Table;
use embodied_r_tests::{binary, write_lamp_questions};
use serde_json::Value;

/// Scores the number of tokens of each completion, less 3; the first completion has no score.
const SCRIPT: &str = r#"#!/bin/sh
# Each list of tokens becomes a line of its own.
ids=$(sed 's/.*"completion_ids":\[\[//; s/\]\],"ids".*//; s/\],\[/\n/g')
scores=$(echo "$ids" | awk -F, 'NR > 1 { printf ", %d", NF - 3 }')
echo "{\"rewards\": [null$scores]}"
"#;

/// A run's inputs in `dir`: a model, eight questions, a command that scores, and settings.
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

fn stderr(command: &mut Command, code: i32) -> String {
    let output = command.assert().code(code).get_output().clone();
    String::from_utf8(output.stderr).unwrap()
}

fn events(dir: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("run/events.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == kind).collect()
}

/// Two stages, the first of which ends after two steps of four, with a reward by a command.
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
fn a_dry_run_tells_what_ends_stages_and_who_scores() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), STAGES);
    let output = train(dir.path()).arg("--dry-run").assert().code(0).get_output().clone();
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| ["stage", "reward", "resampling"].iter().any(|name| line.starts_with(name)))
        .collect();
    assert_eq!(
        lines,
        [
            "stage 1      steps 1 to 4 or earlier, 1 epochs: format 1, repetition 0.5; ends once the \
             mean of completions/mean_length over 2 steps is above 0",
            "stage 2      steps 5 or earlier to 7: accuracy 1, brevity 0.5, cosine 0.1, \
             soft_overlong 0.1; weights go over in 1 steps",
            "reward       brevity by `sh score.sh`, all completions of a step at a time, 60 s",
            "resampling   groups whose rewards are all equal, up to 3 times a step",
        ]
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_command_scores_the_steps_in_which_it_weighs_and_its_scores_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), STAGES);
    let told = stderr(&mut train(dir.path()), 0);
    assert!(told.contains("stage 2 after step 2, since completions/mean_length is"), "{told}");
    let steps = events(dir.path(), "step");
    assert_eq!(steps.len(), 7);
    let asked: Vec<bool> =
        steps.iter().map(|step| step.get("rewards/brevity/mean").is_some()).collect();
    assert_eq!(asked, [false, false, true, true, true, true, true]);
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
fn a_command_that_fails_ends_the_run_with_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    inputs(
        dir.path(),
        "reward_weights = { accuracy = 1.0, brevity = 0.5 }\n\
         reward = [{ name = 'brevity', command = ['sh', '-c', 'echo no model >&2; exit 7'] }]\n",
    );
    let told = stderr(&mut train(dir.path()), 1);
    assert!(
        told.contains(
            "error: the reward `brevity` failed: `sh -c \"echo no model >&2; exit 7\"` ended with \
             exit status: 7, its last words: no model"
        ),
        "{told}"
    );
}

#[test]
fn wrong_rewards_and_stages_are_all_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), STAGES);
    let mut command = train(dir.path());
    command.args(["--set", "stage=[{steps = 2, weights = {brevty = 1}, blend_steps = 1}]"]);
    command.args(["--set", "reward=[{name = 'brevity', command = ['sh'], url = 'http://h'}]"]);
    let told = stderr(&mut command, 2);
    for part in [
        "`reward[0]`: has both `command` and `url`, keep one of them",
        "`stage[0].weights.brevty`: there is no such reward; did you mean `brevity`?",
        "`stage[0].blend_steps`: there is no stage before the first to blend from; remove it",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
}

#[test]
fn a_stage_that_never_comes_and_a_program_that_is_not_there_are_told_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), STAGES);
    let told = stderr(train(dir.path()).args(["--set", "max_steps=4", "--dry-run"]), 2);
    assert_eq!(
        told,
        "error: `stage[1]` never comes: it would begin after step 4, and `max_steps` ends the run \
         after step 4; raise `max_steps`, shorten the stages before it, or remove it\n"
    );
    fs::remove_file(dir.path().join("score.sh")).unwrap();
    let absent = "reward=[{name = 'brevity', command = ['./score.sh']}]";
    let told = stderr(train(dir.path()).args(["--set", absent, "--dry-run"]), 1);
    assert_eq!(
        told,
        "error: the reward `brevity` failed: there is no program `./score.sh`, look at the reward's \
         `command`\n"
    );
}
