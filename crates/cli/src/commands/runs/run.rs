//! The summary of a run, from its folder.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use embodied_r_grpo::checkpoint::{
    BestCheckpoint, BestMetric, FINAL_FOLDER, SETTINGS_FILE, STATE_FILE, step_of,
};
use embodied_r_grpo::events::EVENTS_FILE;
use serde::{Deserialize as _, Serialize, Serializer};
use serde_json::Value;

/// A run that changed within this time is active.
const ACTIVE: Duration = Duration::from_secs(120);
/// A run that changed within this many of its step times is active, too.
const ACTIVE_STEPS: f64 = 3.0;

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Finished,
    Active,
    Stopped,
    Broken,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Active => "active",
            Self::Stopped => "stopped",
            Self::Broken => "broken",
        }
    }
}

/// The command of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Train,
    Sft,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Sft => "sft",
        }
    }
}

/// The listed properties of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) kind: Option<Kind>,
    pub(super) model: Option<String>,
    /// Steps done.
    pub(super) step: Option<u64>,
    /// Steps of the whole run.
    pub(super) steps: Option<u64>,
    pub(super) state: State,
    /// Steps done at the last checkpoint.
    pub(super) checkpoint: Option<u64>,
    pub(super) reward: Option<f64>,
    pub(super) accuracy: Option<f64>,
    pub(super) loss: Option<f64>,
    pub(super) best: Option<BestCheckpoint>,
    /// Time of the last change to its files; seconds since 1970 in JSON.
    #[serde(serialize_with = "seconds")]
    pub(super) changed: Option<SystemTime>,
    /// Why the run is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

fn seconds<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map(|since| since.as_secs()).serialize(serializer)
}

/// Summary of the event log.
#[derive(Debug, Default)]
struct EventSummary {
    steps: Option<u64>,
    step: Option<u64>,
    ended: bool,
    last: Option<Value>,
    best: Option<BestCheckpoint>,
    lines: usize,
    unreadable: usize,
}

impl Run {
    /// Reads a run's folder; unreadable parts are described in `error`.
    pub(super) fn read(path: &Path, now: SystemTime) -> Self {
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name = whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned();
        let mut faults = Vec::new();
        let mut record = |fault: anyhow::Error| faults.push(format!("{fault:#}"));
        let checkpoint = last_checkpoint(path);
        let settings = settings(path, checkpoint).map_err(&mut record).unwrap_or_default();
        let events = events(path).map_err(&mut record).unwrap_or_default();
        let state = match checkpoint {
            Some(step) => state(path, step).map_err(&mut record).unwrap_or_default(),
            None => Value::Null,
        };
        if events.lines > 0 && events.unreadable == events.lines {
            record(anyhow::anyhow!(
                "cannot parse `{}`: no line is an event",
                path.join(EVENTS_FILE).display()
            ));
        }
        let last = |name: &str| events.last.as_ref()?.get(name)?.as_f64();
        let step = events.step.or_else(|| state["step"].as_u64());
        let changed = changed(path);
        let finished = events.ended || path.join(FINAL_FOLDER).is_dir();
        let state_of_run = match () {
            () if !faults.is_empty() => State::Broken,
            () if finished => State::Finished,
            () if is_active(changed, now, last("step_time")) => State::Active,
            () => State::Stopped,
        };
        Self {
            name,
            path: path.to_owned(),
            kind: kind(&settings, events.last.as_ref()),
            model: settings.get("model").and_then(|model| model.as_str()).map(str::to_owned),
            step,
            steps: events.steps,
            state: state_of_run,
            checkpoint,
            reward: last("reward"),
            accuracy: last("rewards/accuracy/mean"),
            loss: last("loss"),
            best: events.best.or_else(|| BestCheckpoint::deserialize(&state["best"]).ok()),
            changed,
            error: (!faults.is_empty()).then(|| faults.join("; ")),
        }
    }
}

fn is_active(changed: Option<SystemTime>, now: SystemTime, step_s: Option<f64>) -> bool {
    let quiet = changed.and_then(|changed| now.duration_since(changed).ok());
    let own = Duration::try_from_secs_f64(ACTIVE_STEPS * step_s.unwrap_or(0.0));
    let most = ACTIVE.max(own.unwrap_or(ACTIVE));
    // A modification time in the future is clock skew.
    changed.is_some() && quiet.is_none_or(|quiet| quiet <= most)
}

/// The command of a run, from its settings or its metrics.
fn kind(settings: &toml::Table, last: Option<&Value>) -> Option<Kind> {
    if settings.contains_key("num_generations") {
        return Some(Kind::Train);
    }
    if settings.contains_key("train_batch_size") {
        return Some(Kind::Sft);
    }
    let last = last?;
    match (last.get("reward").is_some(), last.get("loss").is_some()) {
        (true, _) => Some(Kind::Train),
        (false, true) => Some(Kind::Sft),
        (false, false) => None,
    }
}

/// The settings of the run or its last checkpoint; empty if there are none.
fn settings(run: &Path, checkpoint: Option<u64>) -> anyhow::Result<toml::Table> {
    let own = run.join(SETTINGS_FILE);
    let inner = checkpoint.map(|step| folder(run, step).join(SETTINGS_FILE));
    let Some(file) = [Some(own), inner].into_iter().flatten().find(|file| file.exists()) else {
        return Ok(toml::Table::new());
    };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read `{}`", file.display()))?;
    text.parse::<toml::Table>()
        .map_err(|error| anyhow::anyhow!("cannot parse `{}`: {}", file.display(), error.message()))
}

/// The state of a checkpoint as untyped JSON.
fn state(run: &Path, step: u64) -> anyhow::Result<Value> {
    let file = folder(run, step).join(STATE_FILE);
    let text = std::fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot parse `{}`", file.display()))
}

fn folder(run: &Path, step: u64) -> PathBuf {
    run.join(embodied_r_grpo::checkpoint::name(step))
}

fn last_checkpoint(run: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(run).ok()?.flatten();
    entries.filter_map(|entry| step_of(&entry.file_name().to_string_lossy())).max()
}

/// Time of the last change to the folder or a file in it.
fn changed(run: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    let times = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok());
    times.chain(std::fs::metadata(run).and_then(|of| of.modified()).ok()).max()
}

fn events(run: &Path) -> anyhow::Result<EventSummary> {
    let path = run.join(EVENTS_FILE);
    let mut events = EventSummary::default();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(events),
        Err(error) => return Err(error).context(format!("cannot read `{}`", path.display())),
    };
    // A long run has many steps: parses only the last one.
    let mut step: Option<Vec<u8>> = None;
    for line in BufReader::new(file).split(b'\n') {
        let line = line.with_context(|| format!("cannot read `{}`", path.display()))?;
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        events.lines += 1;
        if line.starts_with(br#"{"event":"step""#) && line.ends_with(b"}") {
            step = Some(line.to_vec());
        } else {
            events.add(line);
        }
    }
    if let Some(line) = step {
        events.add(&line);
    }
    Ok(events)
}

impl EventSummary {
    fn add(&mut self, line: &[u8]) {
        let Ok(event @ Value::Object(_)) = serde_json::from_slice::<Value>(line) else {
            self.unreadable += 1;
            return;
        };
        let step = event["step"].as_u64();
        match event["event"].as_str() {
            Some("start") => self.steps = event["steps"].as_u64().or(self.steps),
            Some("end") => {
                self.ended = true;
                self.step = step.max(self.step);
            }
            Some("eval") => {
                let found = ["eval/accuracy", "eval/loss"]
                    .into_iter()
                    .find_map(|metric| Some((metric, event[metric].as_f64()?)));
                if let (Some((metric, value)), Some(step)) = (found, step) {
                    BestMetric::new(metric, None).update(&mut self.best, Some(value), step);
                }
            }
            Some("step") | None if step.is_some() => {
                self.step = step.max(self.step);
                self.last = Some(event);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(files: &[(&str, &str)]) -> Run {
        run_at(files, Duration::ZERO)
    }

    /// A run with these files, read after a delay.
    fn run_at(files: &[(&str, &str)], later: Duration) -> Run {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Run::read(dir.path(), SystemTime::now() + later)
    }

    const EVENTS: &str = r#"{"event":"start","steps":40,"done":0}
{"event":"eval","step":0,"eval/accuracy":0.25}
{"event":"step","step":1,"reward":0.5,"rewards/accuracy/mean":0.25,"step_time":1.5}
{"event":"eval","step":1,"eval/accuracy":0.75}
{"event":"step","step":2,"reward":0.625,"rewards/accuracy/mean":0.5,"step_time":100}
{"event":"eval","step":2,"eval/accuracy":0.5}
"#;

    #[test]
    fn a_summary_has_the_last_step_and_the_best_evaluation() {
        let settings = "model = \"m\"\nnum_generations = 8\n";
        let run = run(&[("events.jsonl", EVENTS), ("settings.toml", settings)]);
        assert_eq!((run.kind, run.model.as_deref()), (Some(Kind::Train), Some("m")));
        assert_eq!((run.step, run.steps), (Some(2), Some(40)));
        assert_eq!((run.reward, run.accuracy), (Some(0.625), Some(0.5)));
        let best = run.best.unwrap();
        assert_eq!((best.metric.as_str(), best.value, best.step), ("eval/accuracy", 0.75, 1));
    }

    #[test]
    fn a_run_is_active_for_three_step_times() {
        let state =
            |seconds| run_at(&[("events.jsonl", EVENTS)], Duration::from_secs(seconds)).state;
        assert_eq!([1, 290, 400].map(state), [State::Active, State::Active, State::Stopped]);
        let end = format!("{EVENTS}{{\"event\":\"end\",\"step\":40}}\n");
        assert_eq!(run(&[("events.jsonl", &end)]).state, State::Finished);
    }

    #[test]
    fn the_lowest_loss_is_the_best_of_a_cold_start() {
        let events = r#"{"event":"eval","step":0,"eval/loss":2.0}
{"event":"eval","step":5,"eval/loss":1.0}
{"event":"eval","step":9,"eval/loss":1.5}
{"event":"step","step":9,"loss":0.5}
"#;
        let run = run(&[("events.jsonl", events)]);
        assert_eq!((run.kind, run.loss), (Some(Kind::Sft), Some(0.5)));
        assert_eq!(run.best.unwrap().step, 5);
    }

    #[test]
    fn without_events_the_summary_comes_from_the_checkpoint() {
        let state = r#"{"step": 7, "best": {"metric": "eval/accuracy", "value": 0.5, "step": 4}}"#;
        let run = run(&[
            ("checkpoint-7/trainer_state.json", state),
            ("checkpoint-7/settings.toml", "model = \"m\"\ntrain_batch_size = 4\n"),
            ("checkpoint-3/trainer_state.json", "{}"),
        ]);
        assert_eq!((run.step, run.checkpoint, run.kind), (Some(7), Some(7), Some(Kind::Sft)));
        assert_eq!(run.best.unwrap().value, 0.5);
        assert_eq!(run.error, None);
    }

    #[test]
    fn unreadable_files_are_named_and_break_the_run() {
        for (files, part) in [
            (vec![("events.jsonl", EVENTS), ("settings.toml", "model = ")], "settings.toml"),
            (vec![("events.jsonl", "torn\nagain")], "no line is an event"),
            (
                vec![("events.jsonl", EVENTS), ("checkpoint-2/trainer_state.json", "{")],
                "trainer_state.json`: EOF while parsing",
            ),
        ] {
            let run = run(&files);
            assert_eq!(run.state, State::Broken);
            assert!(run.error.as_ref().unwrap().contains(part), "{:?}", run.error);
        }
    }

    #[test]
    fn a_truncated_line_does_not_break_the_run() {
        let run =
            run(&[("events.jsonl", &format!("{EVENTS}{{\"event\":\"step\",\"step\":3,\"rew"))]);
        assert_eq!((run.state, run.step), (State::Active, Some(2)));
    }
}
