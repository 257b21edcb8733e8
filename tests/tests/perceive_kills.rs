//! `embodied-r perceive` killed at a hundred random moments, before a server that misbehaves in every
//! way: nothing that is finished is lost or done twice.

#![cfg(unix)]

#[path = "perceive/place.rs"]
#[allow(dead_code)]
mod place;
#[path = "perceive_kills/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use place::{Place, question};
use serde_json::{Value, json};
use server::{Random, Server};

const KILLS: usize = 100;
/// Requests on their way at a time: what a kill may cost.
const CONCURRENCY: usize = 8;
const QUESTIONS: u32 = 80;

/// Words that no prompt holds.
fn word(id: u32) -> String {
    format!("zebra{id:02}x")
}

fn place() -> Place {
    // Of one video, which every run has to read again.
    Place::new(&(0..QUESTIONS).map(|id| question(id, &word(id))).collect::<Vec<_>>())
}

/// The JSON lines of a file that are whole; a kill may leave one that is not.
fn lines(place: &Place, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(place.path(name)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The serial numbers of a file's lines, which the server gives as tokens.
fn serials(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["prompt_tokens"].as_u64()).collect()
}

/// Every question has one line with its own words, and all that was kept was asked for once.
fn check(place: &Place, server: &Server) {
    let log = place.log();
    assert_eq!((log.len(), place.output().len()), (QUESTIONS as usize, QUESTIONS as usize));
    for (line, id) in log.iter().zip(0..) {
        let frames = line["frames"].as_array().unwrap();
        assert_eq!((&line["id"], frames.len()), (&json!(id), 4), "{line}");
        let own = |frame: &Value| frame["view"].as_str().unwrap().contains(&word(id));
        assert!(frames.iter().all(own), "{line}");
    }

    let cached = serials(&caches(place));
    let kept: BTreeSet<u64> = cached.iter().copied().collect();
    assert_eq!(kept.len(), cached.len(), "a reply is kept twice");
    let paid = serials(&lines(place, "inter/usage.jsonl"));
    let counted: BTreeSet<u64> = paid.iter().copied().collect();
    assert_eq!(counted.len(), paid.len(), "a reply is counted twice");
    assert!(kept.is_subset(&counted), "a reply is kept and not counted");

    let mut lost: BTreeMap<usize, usize> = BTreeMap::new();
    for answers in server.take_answers() {
        let lasting: Vec<u64> =
            answers.iter().filter(|answer| answer.lasting).map(|answer| answer.serial).collect();
        // Of all that was answered, only the last can have been kept: it ends the asking.
        let before = &lasting[..lasting.len().saturating_sub(1)];
        let kept_before = before.iter().find(|serial| kept.contains(serial));
        assert_eq!(kept_before, None, "a request was sent again though its reply was kept");
        for answer in answers.iter().filter(|a| a.kept && !kept.contains(&a.serial)) {
            *lost.entry(answer.process).or_default() += 1;
        }
    }
    let most = lost.values().max().copied().unwrap_or(0);
    assert!(most <= CONCURRENCY, "a kill cost {most} replies");
}

/// The lines of all files of the cache.
fn caches(place: &Place) -> Vec<Value> {
    let files = std::fs::read_dir(place.path("inter/cache")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.flat_map(|name| lines(place, &format!("inter/cache/{name}"))).collect()
}

/// When to kill: some runs before they have come to their first request, most among their requests.
enum Moment {
    After(Duration),
    Requests(usize),
}

impl Moment {
    fn random(random: &mut Random) -> Self {
        match random.below(5) {
            0 => Self::After(Duration::from_millis(random.below(200))),
            _ => Self::Requests(1 + random.below(30) as usize),
        }
    }

    fn has_come(&self, elapsed: Duration, requests: usize) -> bool {
        match self {
            Self::After(wait) => elapsed >= *wait,
            Self::Requests(n) => requests >= *n,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_at_random_moments_lose_nothing_and_do_nothing_twice() {
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    let mut random = Random(seed);
    let server = Server::start(random.next()).await;
    // Nobody listens at the second one.
    let gone = Server::start(1).await.base_url();
    let concurrency = CONCURRENCY.to_string();
    let args = [
        gone.as_str(),
        "--concurrency",
        &concurrency,
        "--max-tokens",
        "50",
        "--timeout-s",
        "2",
        "--first-byte-timeout-s",
        "1",
        "--retry-refused",
        "--max-retries",
        "9",
    ];
    let (mut kills, mut places) = (0, 0);
    while kills < KILLS {
        let place = place();
        places += 1;
        let mut failures = 0;
        loop {
            server.next_process();
            let mut command = place.command(&server, &args);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let moment = Moment::random(&mut random);
            let (began, asked) = (Instant::now(), server.asked());
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if kills < KILLS && moment.has_come(began.elapsed(), server.asked() - asked) {
                    tokio::time::sleep(Duration::from_micros(random.below(5000))).await;
                    break None;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            match status {
                Some(status) if status.success() => break,
                // Refused frames are asked for again by the next run.
                Some(status) => {
                    failures += 1;
                    assert!(failures < 40, "seed {seed}: {status}");
                }
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    kills += 1;
                }
            }
        }
        check(&place, &server);
    }
    println!("{kills} kills in {places} places, seed {seed}; the server: {:?}", server.faults());
}
