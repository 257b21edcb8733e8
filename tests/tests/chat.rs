//! `embodied-r chat` with its input piped, as scripts use it.

mod tiny_model;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use embodied_r_tests::binary;
use serde_json::{Value, json};

fn chat(dir: &Path, arguments: &[&str]) -> Command {
    if !dir.join("model").exists() {
        tiny_model::write(&dir.join("model"));
    }
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["chat", "--model", "model"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What comes of typing `input`.
fn typed(dir: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = chat(dir, arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output
}

fn saved(dir: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(dir.join("said.json")).unwrap()).unwrap()
}

fn said(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

const BRIEF: [&str; 4] = ["--max-new-tokens", "8", "--system-prompt", "Be brief."];

#[test]
fn a_conversation_is_saved_as_it_was_held() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        typed(dir.path(), &BRIEF, "where is\\\nthe lamp?\n\n /clear is a word\n/save said.json\n");
    let messages = saved(dir.path());
    let contents: Vec<&str> = messages.iter().map(|m| m["content"].as_str().unwrap()).collect();
    let roles: Vec<&str> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(
        [contents[0], contents[1], contents[3]],
        ["Be brief.", "where is\nthe lamp?", "/clear is a word"]
    );
    let answers = format!("{}\n{}\n", contents[2], contents[4]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), answers);
}

#[test]
fn what_was_said_before_changes_the_answer_and_clear_forgets_it() {
    let dir = tempfile::tempdir().unwrap();
    let answers = |input: &str| {
        typed(dir.path(), &BRIEF, &format!("{input}/save said.json\n"));
        let messages = saved(dir.path()).into_iter();
        messages.filter(|m| m["role"] == "assistant").map(|m| m["content"].clone()).collect()
    };
    let alone: Vec<Value> = answers("where?\n");
    let after: Vec<Value> = answers("a lamp is left of the chair\nwhere?\n");
    assert_ne!(after[1], alone[0]);
    let cleared: Vec<Value> = answers("a lamp is left of the chair\n/clear\nwhere?\n");
    assert_eq!(cleared, alone);
}

#[test]
fn the_system_prompt_can_be_set_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    typed(dir.path(), &BRIEF, "/system Be kind.\n/save said.json\n");
    assert_eq!(saved(dir.path()), [said("system", "Be kind.")]);
    typed(dir.path(), &BRIEF, "/system\n/save said.json\n");
    assert_eq!(saved(dir.path()), Vec::<Value>::new());
}

#[test]
fn a_long_conversation_goes_on_without_its_oldest_turns_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    chat(dir.path(), &[]);
    let path = dir.path().join("model/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(128);
    fs::write(&path, config.to_string()).unwrap();
    let output = typed(dir.path(), &BRIEF, &"where is the lamp?\n".repeat(9));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches("oldest turns are left out").count(), 1, "{told}");
    let output = typed(dir.path(), &BRIEF, &format!("{}\nwhere?\n", "lamp ".repeat(200)));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the model takes 120"), "{told}");
}

#[test]
fn a_wrong_order_is_told_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = typed(dir.path(), &BRIEF, "/sing\n/save\n/help\n/quit\nnever answered\n");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("`/sing`") && told.contains("`/save` needs"), "{told}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("/system TEXT") && shown.ends_with("space before it.\n"), "{shown}");
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let arguments =
        ["--max-new-tokens", "1000000", "--temperature", "1", "--system-prompt", "Go on."];
    // Nothing ends an answer of this model but its length.
    chat(dir.path(), &arguments);
    for file in ["generation_config.json", "config.json"] {
        let path = dir.path().join("model").join(file);
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        value["eos_token_id"] = Value::Null;
        fs::write(&path, value.to_string()).unwrap();
    }
    let path = dir.path().join("model/tokenizer_config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    value["eos_token"] = Value::Null;
    fs::write(&path, value.to_string()).unwrap();
    let mut child = chat(dir.path(), &arguments).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdin.write_all(b"where?\n").unwrap();
    stdout.fill_buf().unwrap();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    stdin.write_all(b"/save said.json\n/help\n").unwrap();
    drop(stdin);
    let mut shown = String::new();
    stdout.read_to_string(&mut shown).unwrap();
    assert!(shown.contains("/system TEXT"), "{shown}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let answer = saved(dir.path()).pop().unwrap();
    assert_eq!(answer["role"], "assistant");
    assert!(answer["content"].as_str().unwrap().len() < 8_000, "nothing was stopped");
}

#[test]
fn nothing_but_the_answer_goes_to_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let output = typed(dir.path(), &BRIEF, "where?\n/save said.json\n");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(format!("{}\n", saved(dir.path())[2]["content"].as_str().unwrap()), shown);
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}
