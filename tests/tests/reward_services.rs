//! Judges and rewards outside the process: dead ones, hanging ones, and extreme scores.

#![cfg(unix)]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_test_server::{Response, Server};
use embodied_r_tests::small_run::train;
use embodied_r_tests::{binary, events, small_run, stderr_of};
use serde_json::Value;

/// The inputs of a run with the reward `style`.
fn inputs(dir: &Path, style: &str) {
    small_run::write(
        dir,
        "learning_rate = 1e-3
reward_weights = { accuracy = 0.5, style = 0.5 }
[[reward]]
name = 'style'
command = ['sh', 'style.sh']
timeout_s = 600
",
    );
    fs::write(dir.join("style.sh"), style).unwrap();
}

/// Longer than anything in these tests takes on a busy machine, and far less than the rewards' own time limits.
const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until `done` returns a value.
fn wait<T>(what: &str, done: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A reward that never ends; it and a child write their process numbers.
const HANGING: &str = "sleep 3600 & echo $! > child.tmp; mv child.tmp child
echo $$ > own.tmp; mv own.tmp own
sleep 3600";

/// Whether the process exists and is no zombie.
fn is_running(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A run that is killed when dropped.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A run that waits for the hanging reward, and the processes of the reward.
fn hanging(dir: &Path) -> (Run, [String; 2]) {
    inputs(dir, HANGING);
    let child = train(dir).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let run = Run(child);
    let process = |name: &str| {
        let read = || fs::read_to_string(dir.join(name)).ok().filter(|text| !text.is_empty());
        wait("the reward did not start", read).trim().to_owned()
    };
    let processes = ["own", "child"].map(process);
    assert!(processes.iter().all(|process| is_running(process)));
    (run, processes)
}

fn signal(run: &Run, signal: &str) {
    Command::new("kill").args([signal, &run.0.id().to_string()]).assert().success();
}

fn wait_for_the_end_of(processes: &[String]) {
    wait("the reward outlived the run", || {
        (!processes.iter().any(|process| is_running(process))).then_some(())
    });
}

#[test]
fn a_reward_command_and_its_children_end_with_a_killed_trainer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut run, processes) = hanging(dir.path());
    signal(&run, "-KILL");
    run.0.wait().unwrap();
    wait_for_the_end_of(&processes);
}

#[test]
fn the_first_interrupt_ends_the_wait_for_a_reward_command() {
    let dir = tempfile::tempdir().unwrap();
    let (mut run, processes) = hanging(dir.path());
    signal(&run, "-INT");
    assert_eq!(exit_code(&mut run), Some(1));
    let mut stdout = String::new();
    run.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert!(stdout.contains("stopped at run/checkpoint-0; resume with"), "{stdout}");
    wait_for_the_end_of(&processes);
    // The step is repeated as a whole.
    fs::write(dir.path().join("style.sh"), "echo '{\"rewards\": [0, 1, 2, 3, 4, 5, 6, 7]}'")
        .unwrap();
    train(dir.path()).arg("--resume").assert().code(0);
    assert_eq!(events(&dir.path().join("run"), "step").len(), 4);
}

/// The exit code of the run, which must end soon.
fn exit_code(run: &mut Run) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = run.0.try_wait().unwrap() {
            return status.code();
        }
        assert!(began.elapsed() < DEADLINE, "the run waited for its reward");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupt_ends_the_wait_for_a_reward_service() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), "");
    let service = Server::at("/score", |_| Response::hang());
    let url = format!("{}/score", service.url());
    let reward = format!("reward=[{{name = 'style', url = '{url}', timeout_s = 600}}]");
    let mut command = train(dir.path());
    command.args(["--set", &reward]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = Run(command.spawn().unwrap());
    wait("the service got no request", || (!service.requests().is_empty()).then_some(()));
    signal(&run, "-INT");
    assert_eq!(exit_code(&mut run), Some(1));
}

/// A judge is asked about every correct answer; `consistency` is the only other reward.
const JUDGED: &str = "num_generations = 4
generation_batch_size = 8
max_completion_length = 6
reward_weights = { accuracy = 0.5, consistency = 0.5 }
judge = 'http'
judge_model = 'm'
temperature = 0.3
";

#[test]
fn a_dead_judge_ends_the_run_like_a_dead_reward_service() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), "");
    // No server listens where one was.
    let url = Server::chat(|_| Response::hang()).base_url();
    // A question whose every completion is right and has a rationale would need a trained model, so the judge is asked
    // by `rewards score` about one such output, and then by a run from a model that has learned it.
    let output = serde_json::json!({
        "question": "Question: where?", "solution": "A",
        "completion": "<think>left</think><answer>A</answer>",
    });
    fs::write(dir.path().join("outputs.jsonl"), output.to_string()).unwrap();
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args(["rewards", "score", "outputs.jsonl"]);
    command.args(["--judge-base-url", &url, "--judge-model", "m"]);
    let stderr = stderr_of(&mut command, 1);
    assert!(
        stderr.contains(
            "error: the consistency judge failed: no response to any of 1 requests: gave up after "
        ),
        "{stderr}"
    );

    let conversation = serde_json::json!({"messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "<think>t</think><answer>A</answer>"},
    ]});
    let lines = vec![conversation.to_string(); 8].join("\n");
    fs::write(dir.path().join("train.jsonl"), lines).unwrap();
    let mut sft = Command::new(binary());
    sft.current_dir(dir.path()).args(["sft", "--model", "model", "--data", "train.jsonl"]);
    sft.args(["--output", "cold", "--set", "train_batch_size=8", "--set", "num_train_epochs=60"]);
    sft.args(["--set", "learning_rate=0.03"]).assert().code(0);
    let questions: Vec<Value> = (0..8)
        .map(|i| serde_json::json!({"Question_id": i, "question": "q", "answer": "A"}))
        .collect();
    fs::write(dir.path().join("train.json"), Value::from(questions).to_string()).unwrap();
    let settings = format!("{JUDGED}judge_base_url = '{url}'\nsystem_prompt = 's'\n");
    fs::write(dir.path().join("run.toml"), settings.replace("= 6", "= 60")).unwrap();
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args([
        "train",
        "--config",
        "run.toml",
        "--model",
        "cold/final",
    ]);
    let stderr = stderr_of(command.args(["--data", "train.json", "--output", "run"]), 1);
    assert!(
        stderr.contains("error: the consistency judge failed: no response to any of "),
        "{stderr}"
    );
    assert!(!stderr.contains("step 1/"), "{stderr}");
}

#[test]
fn extreme_scores_end_the_run_with_the_reward_the_step_and_a_dump() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path(), "echo '{\"rewards\": [1e308, -1e308, 0, 1, 0, 1, 0, 1]}'");
    let stderr = stderr_of(&mut train(dir.path()), 1);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [line] = lines[..] else { panic!("{stderr}") };
    for part in [
        "the reward `style` gave ",
        "1e308 to a completion of question `",
        " in step 1, so that the mean or the standard deviation of the rewards is not finite",
        "batch dumped to `run/skipped/step-000001.json`",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let dump = fs::read(dir.path().join("run/skipped/step-000001.json")).unwrap();
    let dump: Value = serde_json::from_slice(&dump).unwrap();
    assert_eq!(dump["groups"][0]["completions"][0]["scores"]["style"], 1e308);
    let mut inspect = Command::new(binary());
    inspect.current_dir(dir.path()).args(["inspect", "loss", "--model", "model"]);
    inspect.args(["--data", "run/skipped/step-000001.json"]).assert().code(0);
}

#[test]
fn a_child_that_the_reward_leaves_running_does_not_hold_up_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let style = "sleep 3600 > /dev/null 2>&1 & echo $! >> children
echo '{\"rewards\": [0, 1, 2, 3, 4, 5, 6, 7]}'";
    inputs(dir.path(), style);
    train(dir.path()).assert().code(0);
    let children = fs::read_to_string(dir.path().join("children")).unwrap();
    assert_eq!(children.lines().count(), 4);
    for child in children.lines() {
        assert!(is_running(child), "it is the user's");
        Command::new("kill").args(["-KILL", child]).assert().success();
    }
}
