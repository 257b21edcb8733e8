//! Several processes of one run, which share its videos.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use embodied_r_data::progress::Silent;
use embodied_r_perception::Error;
use embodied_r_perception::captioner::{Asked, Caption, Captioner, Footage};
use embodied_r_perception::perceive::{
    Options, Replica, Shard, Summary, merge, run, settings, unite,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

/// Captions a question with its own text, fails those of `broken`, and remembers what was asked.
#[derive(Default)]
struct Echo {
    style: &'static str,
    broken: BTreeSet<&'static str>,
    asked: Mutex<Vec<String>>,
}

impl Captioner for Echo {
    fn settings(&self) -> Map<String, Value> {
        Map::from_iter([("style".to_owned(), json!(self.style))])
    }

    fn caption<'a>(
        &'a self,
        asked: Asked<'a>,
        _: &'a Footage,
    ) -> BoxFuture<'a, embodied_r_perception::Result<Vec<Caption>>> {
        let text = asked.text.unwrap();
        self.asked.lock().unwrap().push(text.to_owned());
        let result = match self.broken.contains(text) {
            true => Err(Error::EmptyReply { index: 0, reason: None }),
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

struct Place(tempfile::TempDir);

impl Place {
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

    fn options(&self, replica: Option<(usize, usize)>) -> Options {
        Options {
            concurrency: 2,
            replica: replica.and_then(|(index, count)| Replica::new(index, count)),
            ..Options::new(vec![self.path("a.json")], self.path("inter"))
        }
    }

    async fn run(&self, replica: Option<(usize, usize)>, echo: &Echo) -> Summary {
        run(&self.options(replica), echo, &Silent).await.unwrap().remove(0)
    }

    fn unite(&self, options: &Options, echo: &Echo) {
        unite(options, &settings(options, echo), &Silent).unwrap();
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
async fn replicas_together_write_byte_for_byte_what_one_process_writes() {
    let broken = || Echo { broken: ["q3"].into(), ..Echo::default() };
    let whole = Place::new();
    let alone = whole.run(None, &broken()).await;
    let place = Place::new();
    let mut sum: Option<Summary> = None;
    for index in 1..=3 {
        let summary = place.run(Some((index, 3)), &broken()).await;
        assert!(summary.questions <= 4);
        sum = Some(match sum {
            None => summary,
            Some(sum) => sum.with(&summary),
        });
    }
    let sum = sum.unwrap();
    assert_eq!((sum.questions, sum.finished, sum.failed), (10, 9, 1));
    assert_eq!(sum.output, place.path("inter/a.json"));
    assert_eq!((alone.finished, alone.failed), (9, 1));
    place.unite(&place.options(None), &broken());
    assert_eq!(place.outputs(), whole.outputs());
    assert_eq!(place.folders(), 0);
    // Several or one try what failed, and nothing else.
    for replica in [Some((2, 2)), Some((1, 2)), None] {
        let echo = broken();
        place.run(replica, &echo).await;
        assert!(echo.asked.lock().unwrap().iter().all(|asked| asked == "q3"), "{replica:?}");
    }
}

#[tokio::test]
async fn what_other_numbers_of_processes_have_finished_is_not_asked_again() {
    let place = Place::new();
    let first = Echo::default();
    // Of three one was done when the run was killed, and another was amidst a line.
    place.run(Some((1, 3)), &first).await;
    let done = first.asked.lock().unwrap().len();
    let log = place.path("inter/replica-2-of-3");
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("a.captions.jsonl"), "{\"id\": 4, \"vid").unwrap();
    let second = Echo::default();
    let summaries =
        [place.run(Some((1, 2)), &second).await, place.run(Some((2, 2)), &second).await];
    assert_eq!(summaries.iter().map(|summary| summary.already).sum::<usize>(), done);
    assert_eq!(second.asked.lock().unwrap().len(), 10 - done);
    place.unite(&place.options(None), &second);
    let whole = Place::new();
    whole.run(None, &Echo::default()).await;
    assert_eq!(place.outputs(), whole.outputs());
}

#[tokio::test]
async fn one_process_goes_on_from_what_several_have_left() {
    let place = Place::new();
    place.run(Some((2, 2)), &Echo::default()).await;
    let echo = Echo::default();
    let summary = place.run(None, &echo).await;
    assert_eq!(summary.already + echo.asked.lock().unwrap().len(), 10);
    assert!(summary.already > 0);
}

#[tokio::test]
async fn replicas_of_a_shard_write_the_shard() {
    let (place, whole) = (Place::new(), Place::new());
    let shard = |place: &Place, index, replica| Options {
        shard: Shard::new(index, 2),
        ..place.options(replica)
    };
    for index in 1..=2 {
        for replica in 1..=2 {
            let options = shard(&place, index, Some((replica, 2)));
            run(&options, &Echo::default(), &Silent).await.unwrap();
        }
        place.unite(&shard(&place, index, None), &Echo::default());
        run(&shard(&whole, index, None), &Echo::default(), &Silent).await.unwrap();
    }
    for place in [&place, &whole] {
        let options = embodied_r_perception::perceive::MergeOptions {
            data_paths: vec![place.path("a.json")],
            answers: None,
            save_path: place.path("inter"),
            shards: vec![],
        };
        assert_eq!(merge(&options, &Silent).unwrap()[0].finished, 10);
    }
    assert_eq!(place.outputs(), whole.outputs());
}

#[tokio::test]
async fn captions_of_other_settings_are_refused_before_anything_is_asked() {
    let place = Place::new();
    place.run(Some((1, 2)), &Echo::default()).await;
    let other = Echo { style: "other", ..Echo::default() };
    for replica in [Some((1, 3)), Some((2, 3)), Some((3, 3))] {
        let refused = run(&place.options(replica), &other, &Silent).await;
        // Each looks at its own questions alone.
        if let Err(error) = refused {
            assert!(matches!(error, Error::SettingsChanged { .. }), "{error}");
            return;
        }
    }
    unreachable!("captions of other settings are taken");
}
