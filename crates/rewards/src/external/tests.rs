use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::*;

fn batch() -> [Scored<'static>; 3] {
    let scored = |id, completion, ids| Scored {
        id,
        question: "Question: where?",
        solution: "B",
        completion,
        completion_ids: Some(ids),
    };
    [scored("q1", "one", &[1][..]), scored("q1", "a\n\"é\"", &[2, 3]), scored("q2", "", &[])]
}

fn values(scores: &[Score]) -> Vec<Option<f64>> {
    scores.iter().map(|score| score.value).collect()
}

/// A reward by a script of the shell.
fn script(text: &str) -> ExternalReward {
    let words = ["sh", "-c", text].map(str::to_owned);
    ExternalReward::new("style", Source::Command(words.into()))
}

fn ask(reward: &ExternalReward) -> Result<Vec<Score>> {
    External::new(reward).unwrap().score(&batch())
}

fn failure(reward: &ExternalReward) -> String {
    ask(reward).unwrap_err().to_string()
}

#[test]
fn a_commands_scores_come_in_the_order_of_the_completions() {
    let reward = script(r#"cat > /dev/null; echo '{"rewards": [0.5, null, -3], "more": 1}'"#);
    let scores = ask(&reward).unwrap();
    assert_eq!(values(&scores), [Some(0.5), None, Some(-3.0)]);
    assert_eq!(scores[1].why.as_deref(), Some("`style` gave no score"));
}

#[test]
fn a_command_reads_one_json_object_of_lists() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let reward = script(&format!("cat > {}; echo '{{\"rewards\": [0, 0, 0]}}'", seen.display()));
    ask(&reward).unwrap();
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
fn batches_are_of_the_size_asked_for_and_an_empty_step_asks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // The number of completions is that of the empty or filled lists of tokens.
    let text = format!(
        "n=$(sed 's/.*completion_ids\":\\[//;s/\\],\"ids.*//' | tr -cd '[' | wc -c); echo $n >> {}; \
         if [ $n = 2 ]; then echo '{{\"rewards\": [1, 2]}}'; else echo '{{\"rewards\": [3]}}'; fi",
        log.display()
    );
    let reward = ExternalReward { batch_size: Some(2), ..script(&text) };
    assert_eq!(values(&ask(&reward).unwrap()), [Some(1.0), Some(2.0), Some(3.0)]);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "2\n1\n");
    assert_eq!(External::new(&reward).unwrap().score(&[]).unwrap(), []);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "2\n1\n");
}

#[test]
fn a_command_need_not_read_what_it_is_told() {
    let reward = script(r#"echo '{"rewards": [1]}'"#);
    let long = "x".repeat(1 << 20);
    let scored = Scored { completion: &long, ..Scored::default() };
    let scores = External::new(&reward).unwrap().score(&[scored]).unwrap();
    assert_eq!(values(&scores), [Some(1.0)]);
}

#[test]
fn a_command_that_fails_is_named_with_its_status_and_its_last_line() {
    let message = failure(&script("echo loading >&2; echo 'no such model' >&2; echo >&2; exit 3"));
    assert!(message.starts_with("the reward `style` failed: `sh -c \"echo loading"), "{message}");
    assert!(
        message.ends_with("ended with exit status: 3, its last words: no such model"),
        "{message}"
    );
    let message = failure(&script("kill -9 $$"));
    assert!(message.contains("ended with signal: 9"), "{message}");
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let text =
        format!("echo thinking >&2; (sleep 0.6; touch {}) & sleep 30; echo late", mark.display());
    let began = Instant::now();
    let message = failure(&ExternalReward { timeout_s: 0.2, ..script(&text) });
    assert!(
        message.ends_with(
            "gave no scores within 0.2 s and was killed, its last words: thinking; raise \
             `timeout_s` or lower `batch_size`"
        ),
        "{message}"
    );
    std::thread::sleep(Duration::from_millis(900));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!mark.exists(), "a process that the command started lives on");
}

#[test]
fn a_command_that_leaves_its_output_open_to_others_ends_in_time() {
    let reward = script(r#"sleep 30 & echo '{"rewards": [1, 1, 1]}'"#);
    let began = Instant::now();
    assert!(failure(&ExternalReward { timeout_s: 0.3, ..reward }).contains("0.3 s"));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_reply_that_is_not_one_score_a_completion_says_why() {
    for (reply, part) in [
        (r#"{"rewards": [1, 2]}"#, "gave 2 rewards for 3 completions"),
        (r#"{"rewards": [1, NaN, 0]}"#, "`NaN` is no number of JSON, null stands for no score"),
        (r#"{"rewards": [1, -Infinity, 0]}"#, "`Infinity` is no number of JSON"),
        (r#"{"rewards": [1, 1e999, 0]}"#, "number out of range"),
        (r#"{"rewards": [1, "2", 0]}"#, "invalid type: string \"2\", expected f64"),
        (r#"{"scores": [1, 2, 3]}"#, "missing field `rewards`"),
        (r#"{"rewards": [1, 2"#, "EOF while parsing"),
        ("Loading the model", "it begins `Loading the model`"),
        ("", "the reply is empty"),
    ] {
        let message = failure(&script(&format!("echo '{reply}'")));
        assert!(message.starts_with("the reward `style` failed: `sh -c "), "{message}");
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_program_that_is_not_there_is_refused_before_the_run() {
    for program in ["no-such-program-anywhere", "./no/such/file"] {
        let reward = ExternalReward::new("style", Source::Command(vec![program.into()]));
        assert_eq!(
            External::new(&reward).unwrap_err().to_string(),
            format!(
                "the reward `style` failed: there is no program `{program}`, look at the reward's \
                 `command`"
            )
        );
    }
}

/// A service on a free port of this machine, and the number of requests that it got.
struct Service {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    seen: Arc<Mutex<(HeaderMap, Value)>>,
    _runtime: tokio::runtime::Runtime,
}

impl Service {
    /// `answer` is told the number of the request, from 0.
    fn start(answer: impl Fn(usize) -> Response + Send + Sync + 'static) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new((HeaderMap::new(), Value::Null)));
        let (count, keep, answer) = (Arc::clone(&requests), Arc::clone(&seen), Arc::new(answer));
        let handler = move |headers: HeaderMap, axum::Json(body): axum::Json<Value>| {
            *keep.lock().unwrap() = (headers, body);
            let response = answer(count.fetch_add(1, Ordering::SeqCst));
            async move { response }
        };
        let app = axum::Router::new().route("/score", axum::routing::post(handler));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, requests, seen, _runtime: runtime }
    }

    fn reward(&self) -> ExternalReward {
        let url = format!("http://{}/score?key=secret", self.address);
        ExternalReward { timeout_s: 20.0, ..ExternalReward::new("help", Source::Url(url)) }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn scores(rewards: Value) -> Response {
    axum::Json(json!({"rewards": rewards})).into_response()
}

#[test]
fn a_service_gets_the_same_object_as_a_command() {
    let service = Service::start(|_| scores(json!([1, null, 0.25])));
    assert_eq!(values(&ask(&service.reward()).unwrap()), [Some(1.0), None, Some(0.25)]);
    let (headers, body) = service.seen.lock().unwrap().clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(body["completion_ids"], json!([[1], [2, 3], []]));
    assert_eq!(body["ids"], json!(["q1", "q1", "q2"]));
}

#[test]
fn a_service_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let service = Service::start(|request| match request {
        0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after-ms", "1")]).into_response(),
        _ => scores(json!([1, 1, 1])),
    });
    assert_eq!(ask(&service.reward()).unwrap().len(), 3);
    assert_eq!(service.requests(), 2);

    let service = Service::start(|_| (StatusCode::BAD_REQUEST, "too long").into_response());
    let message = failure(&service.reward());
    assert!(message.starts_with("the reward `help` failed: `http://127.0.0.1:"), "{message}");
    assert!(message.ends_with("/score` answered 400: too long"), "{message}");
    assert_eq!(service.requests(), 1);
}

#[test]
fn a_service_that_is_never_well_is_given_up() {
    let busy = (StatusCode::SERVICE_UNAVAILABLE, [("retry-after-ms", "1")]);
    let service = Service::start(move |_| busy.into_response());
    let message = failure(&service.reward());
    assert!(message.contains("gave up after 4 attempts"), "{message}");
    assert_eq!(service.requests(), 4);
}

#[test]
fn what_a_service_gets_wrong_is_told_without_the_query_of_its_address() {
    for (reply, part) in [
        (r#"{"rewards": [1]}"#, "gave 1 rewards for 3 completions"),
        (r#"{"rewards": [NaN]}"#, "`NaN` is no number of JSON"),
        ("hello", "it begins `hello`"),
    ] {
        let service = Service::start(move |_| reply.into_response());
        let message = failure(&service.reward());
        assert!(message.contains(part), "{part} in {message}");
        assert!(message.contains("/score`") && !message.contains("secret"), "{message}");
    }
}

#[test]
fn a_service_is_not_asked_from_asynchronous_code() {
    let reward = ExternalReward::new("help", Source::Url("http://127.0.0.1:9/score".into()));
    let external = External::new(&reward).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let result = runtime.block_on(async { external.score(&batch()) });
    assert!(matches!(result, Err(Error::Async)));
}

fn from_toml(text: &str) -> Result<Vec<ExternalReward>, Faults> {
    let table: toml::Table = text.parse().unwrap();
    ExternalReward::list_from_toml(&table["reward"])
}

#[test]
fn tables_are_read_with_their_defaults_and_written_as_they_were() {
    let rewards = from_toml(
        "[[reward]]\nname = 'style'\ncommand = ['python3', 'style.py']\n\
         [[reward]]\nname = 'help_2'\nurl = 'http://h/score'\ntimeout_s = 2\nbatch_size = 8",
    )
    .unwrap();
    let command = vec!["python3".to_owned(), "style.py".to_owned()];
    assert_eq!(rewards[0], ExternalReward::new("style", Source::Command(command)));
    assert_eq!((rewards[0].timeout_s, rewards[0].batch_size), (60.0, None));
    assert_eq!((rewards[1].timeout_s, rewards[1].batch_size), (2.0, Some(8)));
    let written = toml::Value::try_from(&rewards).unwrap();
    assert_eq!(ExternalReward::list_from_toml(&written).unwrap(), rewards);
}

#[test]
fn all_faults_of_form_are_named_at_once() {
    let found = from_toml(
        "[[reward]]\nname = 'a'\n[[reward]]\nname = 'b'\nurl = 'http://h'\ncommand = ['x']\n\
         [[reward]]\nnam = 'c'\nurl = 'http://h'\n[[reward]]\nname = 'd'\ncommand = 'score.py'",
    )
    .unwrap_err()
    .0;
    assert_eq!(
        found,
        [
            "`reward[0]`: needs `command` or `url`, who scores",
            "`reward[1]`: has both `command` and `url`, keep one of them",
            "`reward[2].nam`: there is no such field; did you mean `name`?",
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
fn names_and_values_that_cannot_be_used_are_all_named_at_once() {
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
            "`reward[0].name`: `my style` must be letters, digits and `_`, without a digit in front",
            "`reward[0].command`: names no program, give one and its arguments",
            "`reward[1].name`: `format` is the name of a built-in reward, take another",
            "`reward[1].url`: must begin with `http://` or `https://`",
            "`reward[1].timeout_s`: is 0, must be more than 0",
            "`reward[1].batch_size`: is 0, must be 1 or more",
            "`reward[2].timeout_s`: is NaN, must be more than 0",
            "`reward[3].name`: `twice` is the name of an earlier reward, take another",
            "`reward[3].command`: names no program, give one and its arguments",
            "`reward[4].name`: `1st` must be letters, digits and `_`, without a digit in front",
        ]
    );
}
