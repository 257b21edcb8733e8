use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use embodied_r_test_server::{Request, Response, Server};
use serde_json::{Value, json};

use super::*;
use crate::service::MAX_REPLY_BYTES;
use crate::validation::ValidationErrors;

fn batch() -> [RewardInput<'static>; 3] {
    let input = |id, completion, ids| RewardInput {
        id,
        question: "Question: where?",
        solution: "B",
        completion,
        completion_ids: Some(ids),
        ..RewardInput::default()
    };
    [input("q1", "one", &[1][..]), input("q1", "a\n\"é\"", &[2, 3]), input("q2", "", &[])]
}

fn values(scores: &[Score]) -> Vec<Option<f64>> {
    scores.iter().map(|score| score.value).collect()
}

/// A reward computed by a shell script.
fn script(text: &str) -> ExternalRewardConfig {
    let argv = ["sh", "-c", text].map(str::to_owned);
    ExternalRewardConfig::new("style", RewardBackend::Command(argv.into()))
}

fn score(reward: &ExternalRewardConfig) -> Result<Vec<Score>> {
    External::new(reward).unwrap().score(&batch())
}

fn failure(reward: &ExternalRewardConfig) -> String {
    score(reward).unwrap_err().to_string()
}

#[test]
fn a_commands_scores_keep_the_order_of_the_completions() {
    let reward = script(r#"cat > /dev/null; echo '{"rewards": [0.5, null, -3], "more": 1}'"#);
    let scores = score(&reward).unwrap();
    assert_eq!(values(&scores), [Some(0.5), None, Some(-3.0)]);
    assert_eq!(scores[1].reason.as_deref(), Some("`style` returned no score"));
}

#[test]
fn a_command_reads_one_json_object_of_lists() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("request");
    let reward = script(&format!("cat > {}; echo '{{\"rewards\": [0, 0, 0]}}'", seen.display()));
    score(&reward).unwrap();
    let seen: Value = serde_json::from_slice(&std::fs::read(seen).unwrap()).unwrap();
    assert_eq!(
        seen,
        json!({
            "prompts": ["Question: where?", "Question: where?", "Question: where?"],
            "completions": ["one", "a\n\"é\"", ""],
            "solutions": ["B", "B", "B"],
            "completion_ids": [[1], [2, 3], []],
            "ids": ["q1", "q1", "q2"],
        })
    );
}

#[test]
fn images_and_columns_are_sent_if_a_question_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("request");
    let reward = script(&format!("cat > {}; echo '{{\"rewards\": [0, 0, 0]}}'", seen.display()));
    let images = ["a.png".to_owned(), "b.png".to_owned()];
    let columns = json!({"problem_type": "OCR", "box": [1, 2]});
    let mut batch = batch();
    batch[1].images = &images;
    batch[0].columns = columns.as_object();
    External::new(&reward).unwrap().score(&batch).unwrap();
    let seen: Value = serde_json::from_slice(&std::fs::read(seen).unwrap()).unwrap();
    assert_eq!(seen["images"], json!([[], ["a.png", "b.png"], []]));
    assert_eq!(seen["columns"], json!([columns, null, null]));
}

#[test]
fn batches_have_the_configured_size_and_an_empty_step_sends_none() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // Counts the completions by their token lists.
    let text = format!(
        "n=$(sed 's/.*completion_ids\":\\[//;s/\\],\"ids.*//' | tr -cd '[' | wc -c); echo $n >> {}; \
         if [ $n = 2 ]; then echo '{{\"rewards\": [1, 2]}}'; else echo '{{\"rewards\": [3]}}'; fi",
        log.display()
    );
    let reward = ExternalRewardConfig { batch_size: Some(2), ..script(&text) };
    assert_eq!(values(&score(&reward).unwrap()), [Some(1.0), Some(2.0), Some(3.0)]);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "2\n1\n");
    assert_eq!(External::new(&reward).unwrap().score(&[]).unwrap(), []);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "2\n1\n");
}

#[test]
fn a_command_need_not_read_its_input() {
    let reward = script(r#"echo '{"rewards": [1]}'"#);
    let long = "x".repeat(1 << 20);
    let input = RewardInput { completion: &long, ..RewardInput::default() };
    let scores = External::new(&reward).unwrap().score(&[input]).unwrap();
    assert_eq!(values(&scores), [Some(1.0)]);
}

#[test]
fn a_failed_command_is_reported_with_its_status_and_last_stderr_line() {
    let message = failure(&script("echo loading >&2; echo 'no such model' >&2; echo >&2; exit 3"));
    assert!(message.starts_with("reward `style` failed: `sh -c \"echo loading"), "{message}");
    assert!(message.ends_with("failed with exit status: 3, stderr: no such model"), "{message}");
    let message = failure(&script("kill -9 $$"));
    assert!(message.contains("failed with signal: 9"), "{message}");
}

#[test]
fn a_command_that_times_out_is_killed_with_its_process_group() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let text =
        format!("echo thinking >&2; (sleep 0.6; touch {}) & sleep 30; echo late", mark.display());
    let began = Instant::now();
    let message = failure(&ExternalRewardConfig { timeout_s: 0.2, ..script(&text) });
    assert!(
        message.ends_with(
            "timed out after 0.2 s and was killed, stderr: thinking; raise `timeout_s` or lower \
             `batch_size`"
        ),
        "{message}"
    );
    std::thread::sleep(Duration::from_millis(900));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!mark.exists(), "a child process of the command is still running");
}

#[test]
fn a_wait_for_a_command_ends_when_the_run_stops_and_its_group_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (ready, mark) = (folder.path().join("ready"), folder.path().join("mark"));
    let text = format!(
        "(sleep 0.5; touch {}) & touch {}; sleep 3600; echo late",
        mark.display(),
        ready.display()
    );
    let reward = ExternalRewardConfig { timeout_s: 3600.0, ..script(&text) };
    let external = External::new(&reward).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ready.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let scores = external.score_until(&batch(), &stop);
        assert!(matches!(scores, Err(Error::Interrupted)), "{scores:?}");
    });
    let existed = mark.exists();
    std::thread::sleep(Duration::from_millis(900));
    assert!(existed || !mark.exists(), "a child process of the command is still running");
}

#[test]
fn a_child_that_keeps_stdout_open_is_subject_to_the_timeout() {
    let reward = script(r#"sleep 30 & echo '{"rewards": [1, 1, 1]}'"#);
    let began = Instant::now();
    assert!(failure(&ExternalRewardConfig { timeout_s: 0.3, ..reward }).contains("0.3 s"));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_invalid_reply_is_reported_with_its_reason() {
    for (reply, part) in [
        (r#"{"rewards": [1, 2]}"#, "returned 2 rewards for 3 completions"),
        (r#"{"rewards": [1, NaN, 0]}"#, "`NaN` is not valid JSON; use null for no score"),
        (r#"{"rewards": [1, -Infinity, 0]}"#, "`Infinity` is not valid JSON"),
        (r#"{"rewards": [1, 1e999, 0]}"#, "number out of range"),
        (r#"{"rewards": [1, "2", 0]}"#, "invalid type: string \"2\", expected f64"),
        (r#"{"scores": [1, 2, 3]}"#, "missing field `rewards`"),
        (r#"{"rewards": [1, 2"#, "EOF while parsing"),
        ("Loading the model", "it starts with `Loading the model`"),
        ("", "the response is empty"),
    ] {
        let message = failure(&script(&format!("echo '{reply}'")));
        assert!(message.starts_with("reward `style` failed: `sh -c "), "{message}");
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_missing_program_is_an_error_before_the_run() {
    for program in ["no-such-program-anywhere", "./no/such/file"] {
        let reward =
            ExternalRewardConfig::new("style", RewardBackend::Command(vec![program.into()]));
        assert_eq!(
            External::new(&reward).unwrap_err().to_string(),
            format!(
                "reward `style` failed: program `{program}` not found; check the reward's `command`"
            )
        );
    }
}

/// A service and the reward that it computes.
fn service(
    reply: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> (Server, ExternalRewardConfig) {
    let server = Server::at("/score", reply);
    let url = RewardBackend::Url(format!("{}/score?key=secret", server.url()));
    let reward = ExternalRewardConfig { timeout_s: 20.0, ..ExternalRewardConfig::new("help", url) };
    (server, reward)
}

fn scores(rewards: Value) -> Response {
    Response::json(&json!({"rewards": rewards}))
}

#[test]
fn a_service_gets_the_same_object_as_a_command() {
    let (server, reward) = service(|_| scores(json!([1, null, 0.25])));
    assert_eq!(values(&score(&reward).unwrap()), [Some(1.0), None, Some(0.25)]);
    let request = &server.requests()[0];
    assert_eq!(request.header("content-type"), Some("application/json"));
    let body = request.json();
    assert_eq!(body["completion_ids"], json!([[1], [2, 3], []]));
    assert_eq!(body["ids"], json!(["q1", "q1", "q2"]));
}

fn busy() -> Response {
    Response::new(503, "").header("retry-after-ms", "1")
}

#[test]
fn a_busy_service_is_retried_and_a_rejected_request_is_not() {
    let (server, reward) = service(|request| match request.index {
        0 => busy(),
        _ => scores(json!([1, 1, 1])),
    });
    assert_eq!(score(&reward).unwrap().len(), 3);
    assert_eq!(server.requests().len(), 2);

    let (server, reward) = service(|_| Response::new(400, "too long"));
    let message = failure(&reward);
    assert!(message.starts_with("reward `help` failed: `http://127.0.0.1:"), "{message}");
    assert!(message.ends_with("/score` returned 400: too long"), "{message}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_service_that_stays_busy_fails_after_four_attempts() {
    let (server, reward) = service(|_| busy());
    let message = failure(&reward);
    assert!(message.contains("gave up after 4 attempts"), "{message}");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn errors_of_a_service_omit_the_query_of_its_url() {
    for (reply, part) in [
        (r#"{"rewards": [1]}"#, "returned 1 rewards for 3 completions"),
        (r#"{"rewards": [NaN]}"#, "`NaN` is not valid JSON"),
        ("hello", "it starts with `hello`"),
    ] {
        let (_server, reward) = service(move |_| Response::new(200, reply));
        let message = failure(&reward);
        assert!(message.contains(part), "{part} in {message}");
        assert!(message.contains("/score`") && !message.contains("secret"), "{message}");
    }
}

#[test]
fn a_reply_of_a_service_has_the_size_limit_of_a_commands() {
    let (_server, reward) = service(|_| Response::new(200, vec![b'x'; MAX_REPLY_BYTES + 1]));
    let message = failure(&reward);
    assert!(message.contains("sent a response of more than 64 MiB"), "{message}");
    let message = failure(&script("head -c 67108865 /dev/zero"));
    assert!(message.contains("the reply is longer than 64 MiB"), "{message}");
}

#[test]
fn calling_a_service_from_async_code_is_an_error() {
    let reward =
        ExternalRewardConfig::new("help", RewardBackend::Url("http://127.0.0.1:9/score".into()));
    let external = External::new(&reward).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let result = runtime.block_on(async { external.score(&batch()) });
    assert!(matches!(result, Err(Error::BlockingCall)));
}

fn from_toml(text: &str) -> Result<Vec<ExternalRewardConfig>, ValidationErrors> {
    let table: toml::Table = text.parse().unwrap();
    ExternalRewardConfig::list_from_toml(&table["reward"])
}

#[test]
fn tables_get_defaults_and_round_trip_through_toml() {
    let rewards = from_toml(
        "[[reward]]\nname = 'style'\ncommand = ['python3', 'style.py']\n\
         [[reward]]\nname = 'help_2'\nurl = 'http://h/score'\ntimeout_s = 2\nbatch_size = 8",
    )
    .unwrap();
    let command = vec!["python3".to_owned(), "style.py".to_owned()];
    assert_eq!(rewards[0], ExternalRewardConfig::new("style", RewardBackend::Command(command)));
    assert_eq!((rewards[0].timeout_s, rewards[0].batch_size), (60.0, None));
    assert_eq!((rewards[1].timeout_s, rewards[1].batch_size), (2.0, Some(8)));
    let written = toml::Value::try_from(&rewards).unwrap();
    assert_eq!(ExternalRewardConfig::list_from_toml(&written).unwrap(), rewards);
}

#[test]
fn all_parse_errors_are_reported_at_once() {
    let found = from_toml(
        "[[reward]]\nname = 'a'\n[[reward]]\nname = 'b'\nurl = 'http://h'\ncommand = ['x']\n\
         [[reward]]\nnam = 'c'\nurl = 'http://h'\n[[reward]]\nname = 'd'\ncommand = 'score.py'",
    )
    .unwrap_err()
    .0;
    assert_eq!(
        found,
        [
            "`reward[0]`: needs a backend; set `command` or `url`",
            "`reward[1]`: `command` and `url` are mutually exclusive; set one",
            "`reward[2].nam`: unknown field; did you mean `name`?",
            "`reward[2]`: missing field `name`",
            "`reward[3]`: invalid type: string \"score.py\", expected a sequence",
        ]
    );
    assert_eq!(
        from_toml("reward = 3").unwrap_err().0,
        ["`reward`: must be a list of tables, `[[reward]]`"]
    );
}

#[test]
fn all_invalid_names_and_values_are_reported_at_once() {
    let found = from_toml(
        "[[reward]]\nname = 'my style'\ncommand = []\n\
         [[reward]]\nname = 'format'\nurl = 'localhost:9000'\ntimeout_s = 0\nbatch_size = 0\n\
         [[reward]]\nname = 'twice'\ncommand = ['x']\ntimeout_s = nan\n\
         [[reward]]\nname = 'twice'\ncommand = ['']\n\
         [[reward]]\nname = '1st'\ncommand = ['x']",
    )
    .unwrap_err()
    .0;
    assert_eq!(
        found,
        [
            "`reward[0].name`: `my style` must consist of letters, digits and `_`, and not start with a digit",
            "`reward[0].command`: is empty; give a program and its arguments",
            "`reward[1].name`: `format` is a built-in reward; choose another name",
            "`reward[1].url`: must start with `http://` or `https://`",
            "`reward[1].timeout_s`: must be more than 0, not 0",
            "`reward[1].batch_size`: must be 1 or more, not 0",
            "`reward[2].timeout_s`: must be more than 0, not NaN",
            "`reward[3].name`: `twice` is defined twice; choose another name",
            "`reward[3].command`: is empty; give a program and its arguments",
            "`reward[4].name`: `1st` must consist of letters, digits and `_`, and not start with a digit",
        ]
    );
}
