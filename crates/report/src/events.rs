//! A run's `events.jsonl`: the metrics of each step, and the stages.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use embodied_r_grpo::events::EVENTS_FILE;
use serde_json::{Map, Value};

use crate::chart::Point;
use crate::error::{Error, Result};

/// The metrics of one step, with TRL's names.
pub(crate) type Metrics = BTreeMap<String, f64>;

/// Fields that may nest an event's metrics.
const NESTED: [&str; 2] = ["metrics", "logs"];

/// The events of a run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Events {
    /// Metrics by step; a step logged again after a resume replaces the earlier one.
    pub(crate) steps: BTreeMap<u64, Metrics>,
    /// Metrics of the evaluations during training, by steps done.
    pub(crate) evaluations: BTreeMap<u64, Metrics>,
    /// Stages in order.
    pub(crate) stages: Vec<Stage>,
    /// Lines that cannot be parsed, such as one truncated by a kill.
    pub(crate) skipped: usize,
}

/// A stage of training with its reward weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    pub(crate) first_step: u64,
    pub(crate) weights: BTreeMap<String, f64>,
}

impl Events {
    /// Reads `events.jsonl` of a run's folder.
    pub(crate) fn read(run: &Path) -> Result<Self> {
        let path = run.join(EVENTS_FILE);
        let cannot_read = |source| Error::Read { path: path.clone(), source };
        let file = std::fs::File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NoEvents { run: run.to_path_buf() },
            _ => cannot_read(error),
        })?;
        let mut events = Self::default();
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(cannot_read)?;
            if !line.trim_ascii().is_empty() {
                events.add(&line);
            }
        }
        if events.steps.is_empty() && events.evaluations.is_empty() {
            return Err(Error::NothingToReport { path, skipped_lines: events.skipped });
        }
        events.find_stages();
        Ok(events)
    }

    fn add(&mut self, line: &[u8]) {
        let Ok(Value::Object(event)) = serde_json::from_slice(line) else {
            self.skipped += 1;
            return;
        };
        let step = ["step", "global_step"].iter().find_map(|name| event.get(*name)?.as_u64());
        let Some(step) = step else { return };
        let mut metrics = Metrics::new();
        flatten("", &event, &mut metrics);
        metrics.retain(|name, _| !["step", "global_step"].contains(&name.as_str()));
        match event.get("event").and_then(Value::as_str) {
            Some("stage") => self.add_stage(step + 1, weights(&metrics)),
            Some("eval") => self.evaluations.entry(step).or_default().extend(metrics),
            Some("step") | None => self.steps.entry(step).or_default().extend(metrics),
            Some(_) => {}
        }
    }

    fn add_stage(&mut self, first_step: u64, weights: BTreeMap<String, f64>) {
        self.stages.retain(|stage| stage.first_step < first_step);
        self.stages.push(Stage { first_step, weights });
    }

    /// Without stage events, infers stages from changes of the reward weights.
    fn find_stages(&mut self) {
        if !self.stages.is_empty() {
            return;
        }
        for (&step, metrics) in &self.steps {
            let weights = weights(metrics);
            if weights.is_empty() {
                continue;
            }
            if self.stages.last().is_none_or(|stage| stage.weights != weights) {
                self.stages.push(Stage { first_step: step, weights });
            }
        }
    }

    /// A metric's value at each step; `None` where it is missing.
    pub(crate) fn series(&self, name: &str) -> Vec<Point> {
        let value = |(step, metrics): (&u64, &Metrics)| (*step as f64, metrics.get(name).copied());
        self.steps.iter().map(value).collect()
    }

    /// A metric's value at each evaluation.
    pub(crate) fn evaluated(&self, name: &str) -> Vec<Point> {
        let value = |(step, metrics): (&u64, &Metrics)| (*step as f64, metrics.get(name).copied());
        self.evaluations.iter().map(value).collect()
    }

    /// Whether any step has the metric.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.steps.values().any(|metrics| metrics.contains_key(name))
    }

    /// The last value of a metric.
    pub(crate) fn last(&self, name: &str) -> Option<f64> {
        self.steps.values().rev().find_map(|metrics| metrics.get(name).copied())
    }
}

/// The reward weights among a step's metrics.
fn weights(metrics: &Metrics) -> BTreeMap<String, f64> {
    let weight = |(name, value): (&String, &f64)| {
        let reward = name.strip_prefix("reward_weights/").or(name.strip_prefix("weights/"))?;
        Some((reward.to_owned(), *value))
    };
    metrics.iter().filter_map(weight).collect()
}

/// Adds the finite numbers of `object`; nested ones are named `outer/inner`.
fn flatten(prefix: &str, object: &Map<String, Value>, metrics: &mut Metrics) {
    for (name, value) in object {
        let inner = match prefix {
            _ if NESTED.contains(&name.as_str()) => prefix.to_owned(),
            "" => name.clone(),
            _ => format!("{prefix}/{name}"),
        };
        match value {
            Value::Object(object) => flatten(&inner, object, metrics),
            value => {
                if let Some(number) = value.as_f64().filter(|number| number.is_finite()) {
                    metrics.insert(inner, number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Events {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("events.jsonl"), text).unwrap();
        Events::read(run.path()).unwrap()
    }

    #[test]
    fn metrics_are_read_flat_or_nested() {
        let events = read(
            "{\"step\": 1, \"reward\": 0.5, \"rewards/accuracy/mean\": 0.25}\n\
             {\"event\": \"step\", \"step\": 2, \"metrics\": {\"reward\": 0.75, \"kl\": null}}\n",
        );
        assert_eq!(events.series("reward"), [(1.0, Some(0.5)), (2.0, Some(0.75))]);
        assert_eq!(events.last("rewards/accuracy/mean"), Some(0.25));
        assert!(!events.has("kl"));
    }

    #[test]
    fn a_truncated_line_is_skipped_and_counted() {
        let events = read("{\"step\": 1, \"reward\": 1}\n{\"step\": 2, \"rew");
        assert_eq!((events.steps.len(), events.skipped), (1, 1));
    }

    #[test]
    fn a_step_logged_again_after_a_resume_replaces_the_first() {
        let events = read("{\"step\": 1, \"reward\": 1}\n{\"step\": 1, \"reward\": 2}\n");
        assert_eq!(events.series("reward"), [(1.0, Some(2.0))]);
    }

    #[test]
    fn a_stage_starts_at_the_step_after_its_event() {
        let events = read(
            "{\"event\": \"stage\", \"step\": 0, \"stage\": 0, \"weights\": {\"format\": 0.7}}\n\
             {\"event\": \"step\", \"step\": 1, \"reward\": 1}\n\
             {\"event\": \"stage\", \"step\": 1, \"stage\": 1, \"weights\": {\"format\": 0.1}}\n",
        );
        let starts: Vec<_> = events.stages.iter().map(|stage| stage.first_step).collect();
        assert_eq!(starts, [1, 2]);
        assert_eq!(events.stages[1].weights["format"], 0.1);
        assert_eq!(events.steps.len(), 1);
    }

    #[test]
    fn without_stage_events_a_stage_starts_where_the_weights_change() {
        let line = |step: u32, format: f64| {
            format!("{{\"step\": {step}, \"reward_weights/format\": {format}}}\n")
        };
        let events = read(&[line(1, 0.7), line(2, 0.7), line(3, 0.1)].concat());
        let starts: Vec<_> = events.stages.iter().map(|stage| stage.first_step).collect();
        assert_eq!(starts, [1, 3]);
    }

    #[test]
    fn an_evaluation_is_not_a_step() {
        let events = read("{\"event\": \"eval\", \"step\": 0, \"eval/accuracy\": 0.4}\n");
        assert!(events.steps.is_empty());
        assert_eq!(events.evaluated("eval/accuracy"), [(0.0, Some(0.4))]);
    }

    #[test]
    fn a_folder_without_events_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = Events::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("no `events.jsonl`"), "{error}");
    }
}
