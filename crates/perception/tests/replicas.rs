//! Replicas: several processes of one run, which share its videos.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use embodied_r_data::progress::Silent;
use embodied_r_perception::Error;
use embodied_r_perception::captioner::{Caption, CaptionRequest, Captioner, VideoFrames};
use embodied_r_perception::perceive::{
    PerceiveOptions, PerceiveSummary, Replica, Shard, merge, merge_replicas, run, settings,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

/// Captions a question with its own text, fails those in `broken`, and records the requests.
#[derive(Default)]
struct Echo {
    style: &'static str,
    broken: BTreeSet<&'static str>,
    requests: Mutex<Vec<String>>,
}

impl Captioner for Echo {
    fn settings(&self) -> Map<String, Value> {
        Map::from_iter([("style".to_owned(), json!(self.style))])
    }

    fn caption<'a>(
        &'a self,
        request: CaptionRequest<'a>,
        _: &'a VideoFrames,
    ) -> BoxFuture<'a, embodied_r_perception::Result<Vec<Caption>>> {
        let text = request.text.unwrap();
        self.requests.lock().unwrap().push(text.to_owned());
        let result = match self.broken.contains(text) {
            true => Err(Error::EmptyCompletion { index: 0, reason: None }),
            false => Ok(vec![Caption {
                index: 0,
                time_s: None,
                action: None,
                view: text.to_owned(),
                prompt_tokens: None,
                completion_tokens: None,
                attempts: 1,
                elapsed_s: 0.0,
                fault: None,
                from_cache: false,
            }]),
        };
        async move { result }.boxed()
    }
}

struct Fixture(tempfile::TempDir);

impl Fixture {
    /// Two questions about each of five videos.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let question = |id: usize| {
            json!({"Question_id": id, "video_id": format!("{}.mp4", id / 2), "question": format!("q{id}"),
                "question_category": "c", "answer": "A"})
        };
        let questions: Value = (0..10).map(question).collect();
        std::fs::write(folder.path().join("a.json"), questions.to_string()).unwrap();
        std::fs::create_dir(folder.path().join("videos")).unwrap();
        for video in 0..5 {
            std::fs::write(folder.path().join(format!("videos/{video}.mp4")), "").unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self, replica: Option<(usize, usize)>) -> PerceiveOptions {
        PerceiveOptions {
            concurrency: 2,
            replica: replica.and_then(|(index, count)| Replica::new(index, count)),
            ..PerceiveOptions::new(vec![self.path("a.json")], self.path("inter"))
        }
    }

    async fn run(&self, replica: Option<(usize, usize)>, echo: &Echo) -> PerceiveSummary {
        run(&self.options(replica), echo, &Silent).await.unwrap().remove(0)
    }

    fn merge_replicas(&self, options: &PerceiveOptions, echo: &Echo) {
        merge_replicas(options, &settings(options, echo), &Silent).unwrap();
    }

    fn outputs(&self) -> [String; 2] {
        ["inter/a.json", "inter/a.captions.jsonl"]
            .map(|name| std::fs::read_to_string(self.path(name)).unwrap())
    }

    fn folders(&self) -> usize {
        let entries = std::fs::read_dir(self.path("inter")).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    }
}

#[tokio::test]
async fn merged_replicas_are_byte_identical_to_a_single_process() {
    let broken = || Echo { broken: ["q3"].into(), ..Echo::default() };
    let whole = Fixture::new();
    let alone = whole.run(None, &broken()).await;
    let fixture = Fixture::new();
    let mut sum: Option<PerceiveSummary> = None;
    for index in 1..=3 {
        let summary = fixture.run(Some((index, 3)), &broken()).await;
        assert!(summary.questions <= 4);
        sum = Some(match sum {
            None => summary,
            Some(sum) => sum.with(&summary),
        });
    }
    let sum = sum.unwrap();
    assert_eq!((sum.questions, sum.finished, sum.failed), (10, 9, 1));
    assert_eq!(sum.output, fixture.path("inter/a.json"));
    assert_eq!((alone.finished, alone.failed), (9, 1));
    fixture.merge_replicas(&fixture.options(None), &broken());
    assert_eq!(fixture.outputs(), whole.outputs());
    assert_eq!(fixture.folders(), 0);
    // Any number of replicas retries only the failed question.
    for replica in [Some((2, 2)), Some((1, 2)), None] {
        let echo = broken();
        fixture.run(replica, &echo).await;
        assert!(echo.requests.lock().unwrap().iter().all(|request| request == "q3"), "{replica:?}");
    }
}

#[tokio::test]
async fn a_run_with_another_replica_count_resumes() {
    let fixture = Fixture::new();
    let first = Echo::default();
    // When the run was killed, one of three replicas was done, and another was writing a line.
    fixture.run(Some((1, 3)), &first).await;
    let done = first.requests.lock().unwrap().len();
    let log = fixture.path("inter/replica-2-of-3");
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("a.captions.jsonl"), "{\"id\": 4, \"vid").unwrap();
    let second = Echo::default();
    let summaries =
        [fixture.run(Some((1, 2)), &second).await, fixture.run(Some((2, 2)), &second).await];
    assert_eq!(summaries.iter().map(|summary| summary.already_finished).sum::<usize>(), done);
    assert_eq!(second.requests.lock().unwrap().len(), 10 - done);
    fixture.merge_replicas(&fixture.options(None), &second);
    let whole = Fixture::new();
    whole.run(None, &Echo::default()).await;
    assert_eq!(fixture.outputs(), whole.outputs());
}

#[tokio::test]
async fn a_single_process_resumes_from_replicas() {
    let fixture = Fixture::new();
    fixture.run(Some((2, 2)), &Echo::default()).await;
    let echo = Echo::default();
    let summary = fixture.run(None, &echo).await;
    assert_eq!(summary.already_finished + echo.requests.lock().unwrap().len(), 10);
    assert!(summary.already_finished > 0);
}

#[tokio::test]
async fn replicas_of_a_shard_write_the_shards_outputs() {
    let (fixture, whole) = (Fixture::new(), Fixture::new());
    let shard = |fixture: &Fixture, index, replica| PerceiveOptions {
        shard: Shard::new(index, 2),
        ..fixture.options(replica)
    };
    for index in 1..=2 {
        for replica in 1..=2 {
            let options = shard(&fixture, index, Some((replica, 2)));
            run(&options, &Echo::default(), &Silent).await.unwrap();
        }
        fixture.merge_replicas(&shard(&fixture, index, None), &Echo::default());
        run(&shard(&whole, index, None), &Echo::default(), &Silent).await.unwrap();
    }
    for fixture in [&fixture, &whole] {
        let options = embodied_r_perception::perceive::MergeOptions {
            data_paths: vec![fixture.path("a.json")],
            answers: None,
            save_path: fixture.path("inter"),
            shards: vec![],
        };
        assert_eq!(merge(&options, &Silent).unwrap()[0].finished, 10);
    }
    assert_eq!(fixture.outputs(), whole.outputs());
}

#[tokio::test]
async fn captions_of_other_settings_are_rejected_before_any_request() {
    let fixture = Fixture::new();
    fixture.run(Some((1, 2)), &Echo::default()).await;
    let other = Echo { style: "other", ..Echo::default() };
    for replica in [Some((1, 3)), Some((2, 3)), Some((3, 3))] {
        let result = run(&fixture.options(replica), &other, &Silent).await;
        // Each replica checks only its own questions.
        if let Err(error) = result {
            assert!(matches!(error, Error::SettingsChanged { .. }), "{error}");
            return;
        }
    }
    unreachable!("captions of other settings are accepted");
}
