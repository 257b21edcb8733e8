//! `embodied-r chat` with piped input, as in scripts.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use embodied_r_tests::{binary, tiny_model};
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

/// The output of a chat with `input`, which must succeed.
fn converse(dir: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = chat(dir, arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output
}

fn saved_messages(dir: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(dir.join("messages.json")).unwrap()).unwrap()
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

const BRIEF: [&str; 4] = ["--max-new-tokens", "8", "--system-prompt", "Be brief."];

#[test]
fn a_conversation_is_saved_with_all_its_messages() {
    let dir = tempfile::tempdir().unwrap();
    let output = converse(
        dir.path(),
        &BRIEF,
        "where is\\\nthe lamp?\n\n /clear is a word\n/save messages.json\n",
    );
    let messages = saved_messages(dir.path());
    let contents: Vec<&str> = messages.iter().map(|m| m["content"].as_str().unwrap()).collect();
    let roles: Vec<&str> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(
        [contents[0], contents[1], contents[3]],
        ["Be brief.", "where is\nthe lamp?", "/clear is a word"]
    );
    let answers = format!("{}\n{}\n", contents[2], contents[4]);
    // What is printed has control characters escaped.
    assert_eq!(String::from_utf8(output.stdout).unwrap(), answers.replace('\u{13}', "\\u0013"));
}

#[test]
fn earlier_turns_change_the_answer_until_they_are_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let answers = |input: &str| {
        converse(dir.path(), &BRIEF, &format!("{input}/save messages.json\n"));
        let messages = saved_messages(dir.path()).into_iter();
        messages.filter(|m| m["role"] == "assistant").map(|m| m["content"].clone()).collect()
    };
    let alone: Vec<Value> = answers("where?\n");
    let after: Vec<Value> = answers("a lamp is left of the chair\nwhere?\n");
    assert_ne!(after[1], alone[0]);
    let cleared: Vec<Value> = answers("a lamp is left of the chair\n/clear\nwhere?\n");
    assert_eq!(cleared, alone);
}

#[test]
fn the_system_prompt_can_be_set_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    converse(dir.path(), &BRIEF, "/system Be kind.\n/save messages.json\n");
    assert_eq!(saved_messages(dir.path()), [message("system", "Be kind.")]);
    converse(dir.path(), &BRIEF, "/system\n/save messages.json\n");
    assert_eq!(saved_messages(dir.path()), Vec::<Value>::new());
}

#[test]
fn a_conversation_beyond_the_context_length_drops_its_oldest_turns_with_one_warning() {
    let dir = tempfile::tempdir().unwrap();
    chat(dir.path(), &[]);
    let path = dir.path().join("model/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(128);
    fs::write(&path, config.to_string()).unwrap();
    let output = converse(dir.path(), &BRIEF, &"where is the lamp?\n".repeat(9));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.matches("dropping its oldest turns").count(), 1, "{stderr}");
    let output = converse(dir.path(), &BRIEF, &format!("{}\nwhere?\n", "lamp ".repeat(200)));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("the limit is 120"), "{stderr}");
}

#[test]
fn a_wrong_command_is_reported_and_the_conversation_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let output = converse(dir.path(), &BRIEF, "/sing\n/save\n/help\n/quit\nnever answered\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("`/sing`") && stderr.contains("`/save` needs"), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("/system TEXT"), "{stdout}");
    assert!(stdout.ends_with("that starts with `/`.\n"), "{stdout}");
}

#[test]
fn ctrl_c_stops_the_answer_but_not_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let arguments =
        ["--max-new-tokens", "1000000", "--temperature", "1", "--system-prompt", "Go on."];
    // Without an end-of-sequence token, only the length limit ends an answer.
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
    stdin.write_all(b"/save messages.json\n/help\n").unwrap();
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("/system TEXT"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let answer = saved_messages(dir.path()).pop().unwrap();
    assert_eq!(answer["role"], "assistant");
    assert!(answer["content"].as_str().unwrap().len() < 8_000, "the answer was not stopped");
}

#[test]
fn only_the_answer_is_written_to_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let output = converse(dir.path(), &BRIEF, "where?\n/save messages.json\n");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(format!("{}\n", saved_messages(dir.path())[2]["content"].as_str().unwrap()), stdout);
    assert!(!stdout.contains('\u{1b}'), "{stdout:?}");
}

#[test]
fn an_error_is_printed_once_and_the_conversation_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("broken.mp4"), "no video").unwrap();
    for file in ["missing.mp4", "broken.mp4"] {
        let input = format!("/video {file}\nhello\n/save messages.json\n");
        let output = converse(dir.path(), &BRIEF, &input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.matches(file).count(), 1, "{stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert_eq!(saved_messages(dir.path()).len(), 3);
    }
}
