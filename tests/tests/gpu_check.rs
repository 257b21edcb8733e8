//! `scripts/gpu_check.sh`: its runner, with programs that hang and crash, and its documentation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Instant;

use embodied_r_tests::binary;
use serde_json::Value;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/gpu_check.sh");

/// Hangs in `doctor`, crashes in the first of two steps of a process after a fact, and knows one more step.
const PROGRAM: &str = r#"#!/bin/sh
fact() { echo "{\"step\":\"$1\",\"fact\":\"$2\",\"value\":1,\"unit\":\"\",\"ok\":true,\"seconds\":0}"; }
case "$*" in
    --version) echo embodied-r 0 ;;
    doctor) sleep 600 & wait ;;
    *"--step decode,grpo"*)
        fact decode "batch 1"
        echo "CUDA error: an illegal memory access" >&2
        kill -SEGV $$ ;;
    *"--step decode"*) fact decode "batch 1, alone with $CUDA_LAUNCH_BLOCKING" && fact decode finished ;;
    *"--step grpo"*) fact grpo "step_s" && fact grpo finished ;;
    *) exit 2 ;;
esac
"#;

#[test]
fn a_step_that_hangs_or_crashes_leaves_its_facts_and_the_next_one_runs() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    fs::write(&program, PROGRAM).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let began = Instant::now();
    let output = Command::new(SCRIPT)
        .args(["--limit", "20", "--steps", "setup,decode,grpo", "--out", "out", "--program"])
        .arg(&program)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let took = began.elapsed().as_secs();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    // `sleep` is not waited for.
    assert!(took < 60, "{took} s");
    let facts = fs::read_to_string(dir.path().join("out/facts.jsonl")).unwrap();
    let facts: Vec<Value> = facts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |step: &str| -> Vec<(&str, &str, bool)> {
        let facts = facts.iter().filter(|fact| fact["step"] == step);
        facts
            .map(|fact| {
                let text = |key: &str| fact[key].as_str().unwrap();
                (text("fact"), text("unit"), fact["ok"].as_bool().unwrap())
            })
            .collect()
    };
    let setup = of("setup");
    assert_eq!(setup.first(), Some(&("program", "", true)), "{text}");
    assert_eq!(setup.last(), Some(&("finished", "no end after 15 s", false)), "{text}");
    let crashed = "exit code 139: CUDA error: an illegal memory access";
    assert_eq!(of("decode"), [("batch 1", "", true), ("finished", crashed, false)], "{text}");
    assert_eq!(of("grpo"), [("step_s", "", true), ("finished", "", true)], "{text}");
    assert_eq!(
        of("decode-blocking"),
        [("batch 1, alone with 1", "", true), ("finished", "", true)],
        "{text}"
    );
    assert!(!of("setup-blocking").is_empty(), "{text}");
}

#[test]
fn wrong_options_of_the_check_are_refused() {
    for (args, expected) in [
        (vec!["--program", "none"], "there is no program `none`"),
        (vec!["--program", "/bin/sh", "--steps", "chek"], "there is no step `chek`"),
        (vec!["--program", "/bin/sh", "--limit", "soon"], "`--limit` is `soon`"),
        (vec!["--program", "/bin/sh", "--out", "/"], "`/` exists"),
        (vec!["--fast"], "unknown option `--fast`"),
        (vec!["--limit"], "`--limit` needs a value"),
    ] {
        let output = Command::new(SCRIPT).args(&args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(error.contains(expected) && error.contains("hint: "), "{args:?}: {error}");
    }
}

#[test]
fn the_steps_of_the_check_are_those_of_its_documentation() {
    let list = Command::new(SCRIPT).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let steps: Vec<(&str, &str)> = list.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let docs = include_str!("../../docs/cuda.md");
    let table = docs.split("| step |").nth(1).unwrap().split("\n\n").next().unwrap();
    let row = |line: &'static str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        Some((cells.next()?.trim_matches('`'), cells.next()?))
    };
    let documented: Vec<(&str, &str)> = table.lines().skip(2).filter_map(row).collect();
    assert_eq!(steps, documented);
    // What the program cannot run, the script does itself.
    let help = Command::new(binary()).args(["bench", "gpu", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let script = fs::read_to_string(SCRIPT).unwrap();
    for (step, _) in steps {
        let own = script.contains(&format!("step_{step}()")) || step == "scaling";
        assert!(own || help.contains(&format!("- {step}:")), "{step}: {help}");
    }
}
