//! `embodied-r perceive` killed at random moments, with a server that injects every kind of
//! fault: no finished work is lost or repeated.

#![cfg(unix)]

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Random, Server};

use crate::perceive::workspace::{Workspace, question};

/// Maximum requests in flight, and so the responses that a kill may lose.
const CONCURRENCY: usize = 8;
const QUESTIONS: u32 = 80;

/// A word that occurs in no other prompt.
fn word(id: u32) -> String {
    format!("zebra{id:02}x")
}

fn new_workspace() -> Workspace {
    // All questions are about one video, which every run decodes again.
    Workspace::new(&(0..QUESTIONS).map(|id| question(id, &word(id))).collect::<Vec<_>>())
}

/// The complete JSON lines of a file; a kill may leave a partial one.
fn lines(workspace: &Workspace, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(workspace.path(name)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The serial numbers in a file's lines, which the server returns as token counts.
fn serials(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["prompt_tokens"].as_u64()).collect()
}

/// Every question has one line with its own word, and no cached response was requested again.
fn check(workspace: &Workspace, server: &Server) {
    let log = workspace.log();
    assert_eq!((log.len(), workspace.output().len()), (QUESTIONS as usize, QUESTIONS as usize));
    for (line, id) in log.iter().zip(0..) {
        let frames = line["frames"].as_array().unwrap();
        assert_eq!((&line["id"], frames.len()), (&json!(id), 4), "{line}");
        let own = |frame: &Value| frame["view"].as_str().unwrap().contains(&word(id));
        assert!(frames.iter().all(own), "{line}");
    }

    let cached = serials(&caches(workspace));
    let kept: BTreeSet<u64> = cached.iter().copied().collect();
    assert_eq!(kept.len(), cached.len(), "a response is cached twice");
    let billed = serials(&lines(workspace, "inter/usage.jsonl"));
    let counted: BTreeSet<u64> = billed.iter().copied().collect();
    assert_eq!(counted.len(), billed.len(), "a response is counted twice");
    assert!(kept.is_subset(&counted), "a response is cached but not counted");

    let mut lost: BTreeMap<usize, usize> = BTreeMap::new();
    for answers in server.take_answers() {
        let finals: Vec<u64> =
            answers.iter().filter(|answer| answer.is_final).map(|answer| answer.serial).collect();
        // Only the last final response can be cached, since it ends the requests.
        let before = &finals[..finals.len().saturating_sub(1)];
        let kept_before = before.iter().find(|serial| kept.contains(serial));
        assert_eq!(kept_before, None, "a request was repeated although its response was cached");
        for answer in answers.iter().filter(|a| a.is_cached && !kept.contains(&a.serial)) {
            *lost.entry(answer.process).or_default() += 1;
        }
    }
    let most = lost.values().max().copied().unwrap_or(0);
    assert!(most <= CONCURRENCY, "a kill lost {most} responses");
}

/// The lines of all cache files.
fn caches(workspace: &Workspace) -> Vec<Value> {
    let files = std::fs::read_dir(workspace.path("inter/cache")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.flat_map(|name| lines(workspace, &format!("inter/cache/{name}"))).collect()
}

/// When to kill: some runs before their first request, most during their requests.
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

#[test]
fn kills_at_random_moments_lose_and_repeat_nothing() {
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    let mut random = Random(seed);
    let server = Server::start(random.next());
    // The second server is unreachable.
    let unreachable = Server::start(1).base_url();
    let concurrency = CONCURRENCY.to_string();
    let args = [
        unreachable.as_str(),
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
    let (all, mut kills, mut workspaces) = (embodied_r_tests::kills(), 0, 0);
    while kills < all {
        let workspace = new_workspace();
        workspaces += 1;
        let mut failures = 0;
        loop {
            server.next_process();
            let mut command = workspace.command_at(&server.base_url(), &args);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let moment = Moment::random(&mut random);
            let (began, before) = (Instant::now(), server.request_count());
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if kills < all && moment.has_come(began.elapsed(), server.request_count() - before)
                {
                    std::thread::sleep(Duration::from_micros(random.below(5000)));
                    break None;
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            match status {
                Some(status) if status.success() => break,
                // The next run retries refused frames.
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
        check(&workspace, &server);
    }
    println!(
        "{kills} kills in {workspaces} workspaces, seed {seed}; faults: {:?}",
        server.faults()
    );
}
