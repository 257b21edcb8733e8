//! Sampling parameters and variables of the chat template, in every command that samples from a model.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{
    binary, events, id_lists, small_run, stderr_of, stdout_of, tiny_model, write_lamp_questions,
};
use serde_json::{Value, json};

use crate::serve::client::{Server, chat};

/// Commands whose options are the same.
const COMMANDS: [&str; 4] = ["infer", "eval", "chat", "ask"];

const TOKENS: [&str; 2] = ["--max-new-tokens", "16"];

fn embodied_r(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments);
    command
}

/// A text model, a question, and a room's video with its scene.
fn inputs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    write_lamp_questions(dir.path(), 1);
    let rooms = ["sim", "rooms", "--output", "raw", "--rooms", "2", "--seed", "7"];
    embodied_r(dir.path(), &rooms).assert().code(0);
    dir
}

/// The first file with this extension below `dir`.
fn find(dir: &Path, extension: &str) -> Option<String> {
    let mut entries: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.iter().find_map(|path| match path.is_dir() {
        true => find(path, extension),
        false => path
            .extension()
            .is_some_and(|it| it == extension)
            .then(|| path.to_str().unwrap().to_owned()),
    })
}

/// What the model replies in `command` with these options.
fn reply(dir: &Path, command: &str, options: &[&str]) -> String {
    let options = [&TOKENS[..], options].concat();
    let content = |file: &str| {
        let records: Vec<Value> =
            serde_json::from_slice(&fs::read(dir.join(file)).unwrap()).unwrap();
        fs::remove_file(dir.join(file)).unwrap();
        records[0]["content"].as_str().unwrap().to_owned()
    };
    let of_data = |command: &str| {
        let data = [command, "--model", "model", "--data", "train.json", "--output", "out.json"];
        embodied_r(dir, &[&data[..], &options].concat()).assert().code(0);
    };
    match command {
        "infer" => {
            of_data("infer");
            content("out.json")
        }
        "eval" => {
            let data = ["eval", "--model", "model", "--data", "train.json", "--output", "scores"];
            embodied_r(dir, &[&data[..], &options].concat()).assert().code(0);
            let reply = content("scores/answers.json");
            fs::remove_dir_all(dir.join("scores")).unwrap();
            reply
        }
        "chat" => {
            let mut command =
                embodied_r(dir, &[&["chat", "--model", "model"][..], &options].concat());
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let input = b"where is the lamp?\n/save out.json\n";
            child.stdin.take().unwrap().write_all(input).unwrap();
            assert!(child.wait().unwrap().success());
            let saved: Vec<Value> =
                serde_json::from_slice(&fs::read(dir.join("out.json")).unwrap()).unwrap();
            fs::remove_file(dir.join("out.json")).unwrap();
            saved.last().unwrap()["content"].as_str().unwrap().to_owned()
        }
        _ => {
            let video = find(&dir.join("raw"), "mp4").unwrap();
            let asked = ["ask", &video, "Where?", "--scenes", "raw/scenes", "--policy", "model"];
            let more = ["--max-frames", "4", "--json"];
            let answer = stdout_of(&mut embodied_r(dir, &[&asked[..], &more, &options].concat()));
            let answer: Value = serde_json::from_str(&answer).unwrap();
            answer["completion"].as_str().unwrap().to_owned()
        }
    }
}

#[test]
fn each_parameter_works_in_every_command() {
    let dir = inputs();
    for command in COMMANDS {
        let reply = |options: &[&str]| reply(dir.path(), command, options);
        let greedy = reply(&[]);
        let sampled = reply(&["--temperature", "1"]);
        assert_ne!(greedy, sampled, "{command}");
        for narrow in [["--top-k", "1"], ["--min-p", "1"], ["--top-p", "1e-9"]] {
            assert_eq!(
                reply(&[&["--temperature", "1"][..], &narrow].concat()),
                greedy,
                "{command}"
            );
        }
        let all = ["--temperature", "1", "--top-k", "-1"];
        assert_eq!(reply(&all), sampled, "{command}");
        assert_ne!(reply(&["--repetition-penalty", "1e9"]), greedy, "{command}");
    }
}

#[test]
fn parameters_that_are_not_given_come_from_the_generation_config_if_that_is_wanted() {
    let dir = inputs();
    let file = dir.path().join("model/generation_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["temperature"] = json!(0);
    config["repetition_penalty"] = json!(1e9);
    fs::write(&file, config.to_string()).unwrap();
    for command in COMMANDS {
        let reply = |options: &[&str]| reply(dir.path(), command, options);
        let auto = ["--generation-config", "auto"];
        let penalized = reply(&["--repetition-penalty", "1e9"]);
        assert_eq!(reply(&auto), penalized, "{command}");
        let greedy = reply(&[]);
        assert_ne!(greedy, penalized, "{command}");
        let off = ["--repetition-penalty", "1"];
        assert_eq!(reply(&[&auto[..], &off].concat()), greedy, "{command}");
    }
    config["temperature"] = Value::Null;
    config["repetition_penalty"] = Value::Null;
    fs::write(&file, config.to_string()).unwrap();
    let open = reply(dir.path(), "infer", &["--generation-config", "auto"]);
    assert_eq!(open, reply(dir.path(), "infer", &["--temperature", "1"]));
}

#[test]
fn values_out_of_bounds_are_wrong_usage() {
    let dir = inputs();
    for (option, value) in [
        ("temperature", "-1"),
        ("top-p", "0"),
        ("top-k", "-2"),
        ("min-p", "1.5"),
        ("repetition-penalty", "0"),
    ] {
        let options = [&format!("--{option}={value}")[..], "--data", "train.json"];
        let infer = ["infer", "--model", "model", "--output", "out.json"];
        let stderr = stderr_of(&mut embodied_r(dir.path(), &[&infer[..], &options].concat()), 2);
        let name = option.replace('-', "_");
        assert!(stderr.contains(&format!("`{name}` must be ")), "{stderr}");
    }
    let server = ["infer", "--base-url", "http://127.0.0.1:9", "--model", "m"];
    let more = ["--data", "train.json", "--output", "out.json", "--generation-config", "auto"];
    let stderr = stderr_of(&mut embodied_r(dir.path(), &[&server[..], &more].concat()), 2);
    assert!(stderr.contains("--generation-config auto"), "{stderr}");
}

#[test]
fn training_samples_with_them() {
    let completions = |settings: &str| {
        let dir = tempfile::tempdir().unwrap();
        let weights = "max_steps = 1\nreward_weights = { accuracy = 0.5, format = 0.5 }\n";
        small_run::write(dir.path(), &[weights, settings].concat());
        small_run::train(dir.path()).assert().code(0);
        let file = dir.path().join("run/completions/completions_00001.parquet");
        id_lists(&file, "completion_ids")
    };
    let greedy = completions("top_k = 1");
    assert_eq!(completions("min_p = 1.0"), greedy);
    assert_ne!(completions(""), greedy);
    let penalized = completions("top_k = 1\nrepetition_penalty = 1e9");
    assert_ne!(penalized, greedy);
    for ids in penalized {
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    small_run::write(dir.path(), "min_p = 2.0\nrepetition_penalty = 0.0\n");
    let stderr = stderr_of(&mut small_run::train(dir.path()), 2);
    for message in ["`min_p`: must be a number from 0 to 1, not 2", "`repetition_penalty`: must be"]
    {
        assert!(stderr.contains(message), "{stderr}");
    }
}

/// What Qwen3's template writes into the generation prompt with `enable_thinking = false`.
const NO_THINKING: &str = "<think>\\n\\n</think>\\n\\n";

/// Gives the model a generation prompt without thinking: always, or as a variable says.
fn close_thinking(model: &Path, condition: Option<&str>) {
    let file = model.join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let template = config["chat_template"].as_str().unwrap();
    let opening = "{{- '<|im_start|>assistant\\n' }}";
    let closed = match condition {
        Some(condition) => {
            format!("{opening}{{%- if {condition} %}}{{{{- '{NO_THINKING}' }}}}{{%- endif %}}")
        }
        None => format!("{opening}{{{{- '{NO_THINKING}' }}}}"),
    };
    assert!(template.contains(opening));
    config["chat_template"] = template.replace(opening, &closed).into();
    fs::write(file, config.to_string()).unwrap();
}

const WANTS_NONE: &str = "enable_thinking is defined and enable_thinking is false";

#[test]
fn a_variable_of_the_chat_template_works_in_every_command() {
    let (dir, always) = (inputs(), inputs());
    close_thinking(&dir.path().join("model"), Some(WANTS_NONE));
    close_thinking(&always.path().join("model"), None);
    let off = ["--chat-template-kwargs", r#"{"enable_thinking": false}"#];
    for command in COMMANDS {
        let without = reply(dir.path(), command, &off);
        assert_eq!(without, reply(always.path(), command, &[]), "{command}");
        assert_ne!(without, reply(dir.path(), command, &[]), "{command}");
    }
    for value in ["7", r#"{"messages": []}"#] {
        let options = ["--chat-template-kwargs", value, "--data", "train.json"];
        let infer = ["infer", "--model", "model", "--output", "out.json"];
        let stderr = stderr_of(&mut embodied_r(dir.path(), &[&infer[..], &options].concat()), 2);
        assert!(stderr.contains("--chat-template-kwargs"), "{stderr}");
    }
    let unknown = ["--chat-template-kwargs", r#"{"enable_thought": false}"#];
    let infer = ["infer", "--model", "model", "--data", "train.json", "--output", "out.json"];
    let stderr = stderr_of(&mut embodied_r(dir.path(), &[&infer[..], &unknown].concat()), 0);
    assert!(stderr.contains("does not use `enable_thought`"), "{stderr}");
}

#[test]
fn training_gives_variables_to_the_chat_template() {
    let completions = |condition: Option<&str>, settings: &str, flags: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let weights = "max_steps = 1\nreward_weights = { accuracy = 0.5, format = 0.5 }\n";
        small_run::write(dir.path(), &[weights, settings].concat());
        close_thinking(&dir.path().join("model"), condition);
        small_run::train(dir.path()).args(flags).assert().code(0);
        let file = dir.path().join("run/completions/completions_00001.parquet");
        id_lists(&file, "completion_ids")
    };
    let always = completions(None, "", &[]);
    let settings = "chat_template_kwargs = { enable_thinking = false }\n";
    assert_eq!(completions(Some(WANTS_NONE), settings, &[]), always);
    let flags = ["--chat-template-kwargs", r#"{"enable_thinking": false}"#];
    assert_eq!(completions(Some(WANTS_NONE), "", &flags), always);
    assert_ne!(completions(Some(WANTS_NONE), "", &[]), always);
    let loss = |condition: Option<&str>, flags: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        small_run::write(dir.path(), "");
        close_thinking(&dir.path().join("model"), condition);
        let mut sft = small_run::sft(dir.path());
        sft.args(["--set", "max_steps=1"]).args(flags).assert().code(0);
        events(&dir.path().join("run"), "step")[0]["loss"].as_f64().unwrap()
    };
    assert_eq!(loss(Some(WANTS_NONE), &flags), loss(None, &[]));
    assert_ne!(loss(Some(WANTS_NONE), &[]), loss(None, &[]));
    let dir = tempfile::tempdir().unwrap();
    small_run::write(dir.path(), "chat_template_kwargs = 7\n");
    let stderr = stderr_of(&mut small_run::train(dir.path()), 2);
    assert!(stderr.contains("chat_template_kwargs"), "{stderr}");
}

#[test]
fn the_server_takes_them_from_the_request_then_from_the_generation_config() {
    let reply = |config: Value, fields: Value| {
        let dir = tempfile::tempdir().unwrap();
        tiny_model::write(&dir.path().join("model"));
        let file = dir.path().join("model/generation_config.json");
        let mut all: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        fs::write(&file, all.to_string()).unwrap();
        let server = Server::launch(dir, &[], None);
        let mut body = json!({"seed": 3, "max_tokens": 16});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let response =
            server.post("/v1/chat/completions", &chat("where is the lamp?", body)).json();
        response["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    let greedy = reply(json!({}), json!({"temperature": 0}));
    assert_ne!(reply(json!({}), json!({})), greedy);
    for fields in [json!({"top_k": 1}), json!({"min_p": 1})] {
        assert_eq!(reply(json!({}), fields.clone()), greedy, "{fields}");
        assert_eq!(reply(fields.clone(), json!({})), greedy, "{fields}");
    }
    let penalized = reply(json!({}), json!({"temperature": 0, "repetition_penalty": 1e9}));
    assert_ne!(penalized, greedy);
    assert_eq!(reply(json!({"repetition_penalty": 1e9, "temperature": 0}), json!({})), penalized);
    let given = json!({"temperature": 0, "repetition_penalty": 1});
    assert_eq!(reply(json!({"repetition_penalty": 1e9}), given), greedy);
}
