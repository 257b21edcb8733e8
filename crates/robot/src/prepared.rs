//! From a data set to questions: demonstrations, key points, splits and questions in memory, before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use embodied_r_data::Progress;
use embodied_r_lerobot::Dataset;
use serde::Serialize;

use crate::annotations::annotate;
use crate::columns::{ColumnOptions, Columns};
use crate::demonstration::Demonstration;
use crate::error::{Error, Result};
use crate::key_points::{KeyPoint, STILL_SPEED, STILL_VELOCITY, Stillness, key_points};
use crate::prompt::{PromptStyle, Prompts};
use crate::questions::{QuestionOptions, Questions, Source, is_same_task, questions};
use crate::records::Records;
use crate::robot::Robot;
use crate::split::{Shares, Split, split};

/// Most decimals of coordinates.
const MAX_DECIMALS: usize = 6;

/// All settings of questions about a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Which columns are read.
    pub columns: ColumnOptions,
    /// The bound on joint velocities at a stop, in rad/s; `None` is ARM's, [`STILL_VELOCITY`].
    pub still_velocity: Option<f64>,
    /// The bound on displacements per frame at a stop, in metres; `None` is [`STILL_SPEED`] at the frame rate. Used
    /// without joint velocities.
    pub still_epsilon: Option<f64>,
    /// The gripper is open above this; `None` is the middle of all its values.
    pub gripper_threshold: Option<f64>,
    /// The shares of the splits.
    pub shares: Shares,
    /// Tasks of which all episodes are for testing, in any case.
    pub held_out_tasks: Vec<String>,
    /// Plans and subtasks of the demonstrations, in a file that [`annotate`] reads.
    pub annotations: Option<PathBuf>,
    /// How questions are made.
    pub questions: QuestionOptions,
    /// How long prompts are.
    pub style: PromptStyle,
    /// Decimals of coordinates.
    pub decimals: usize,
    /// What prompts say about the robot.
    pub robot: Robot,
}

/// The key-point rule of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KeyPointRule {
    /// When the arm stands still, in rad/s or metres.
    pub still: Stillness,
    /// The gripper is open above this; `None` if it is not recorded.
    pub gripper_threshold: Option<f64>,
}

/// Demonstrations with their key points, splits and questions.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Which columns were read.
    pub columns: Columns,
    /// Frames per second.
    pub fps: f64,
    /// The key-point rule.
    pub rule: KeyPointRule,
    /// The demonstrations, in order.
    pub demonstrations: Vec<Demonstration>,
    /// The key points of each.
    pub key_points: Vec<Vec<KeyPoint>>,
    /// The split of each.
    pub splits: Vec<Split>,
    /// The questions.
    pub questions: Questions,
}

impl Settings {
    /// Checks the settings that need no data set.
    ///
    /// # Errors
    /// [`Error::Option`] if one is out of range.
    pub fn check(&self) -> Result<()> {
        self.questions.check()?;
        let fault = |option, reason: String| Err(Error::Option { option, reason });
        if !(1..=MAX_DECIMALS).contains(&self.decimals) {
            return fault("--decimals", format!("must be from 1 to {MAX_DECIMALS}"));
        }
        for (option, value) in
            [("--still-velocity", self.still_velocity), ("--still-epsilon", self.still_epsilon)]
        {
            if value.is_some_and(|value| !value.is_finite() || value < 0.0) {
                return fault(option, "must be a number of 0 or more".to_owned());
            }
        }
        if self.columns.position_scale.is_some_and(|scale| !scale.is_finite() || scale <= 0.0) {
            return fault("--position-scale", "must be a number above 0".to_owned());
        }
        if self.gripper_threshold.is_some_and(|value| !value.is_finite()) {
            return fault("--gripper-threshold", "must be a number".to_owned());
        }
        Ok(())
    }

    /// How prompts are written.
    pub fn prompts(&self) -> Prompts<'_> {
        Prompts { robot: &self.robot, style: self.style, decimals: self.decimals }
    }

    /// How records are written.
    pub fn records(&self) -> Records<'_> {
        Records { prompts: self.prompts(), form: self.questions.form }
    }
}

impl Prepared {
    /// Reads the demonstrations of `dataset` and makes questions. Warns `progress` of positions that can hardly be those of a
    /// gripper in metres.
    ///
    /// # Errors
    /// A setting is out of range or names what the data set does not have, the data set cannot be read, a number is not
    /// finite, or there are no questions.
    pub fn new(dataset: &Dataset, settings: &Settings, progress: &dyn Progress) -> Result<Self> {
        settings.check()?;
        let columns = Columns::new(dataset, &settings.columns)?;
        let mut demonstrations = columns.read(dataset)?;
        if let Some(path) = &settings.annotations {
            annotate(&mut demonstrations, path)?;
        }
        columns.doubts(dataset, &demonstrations).iter().for_each(|doubt| progress.warn(doubt));
        Self::of(columns, dataset.fps(), demonstrations, settings)
    }

    /// Questions about `demonstrations` at `fps` frames per second.
    fn of(
        columns: Columns,
        fps: f64,
        demonstrations: Vec<Demonstration>,
        settings: &Settings,
    ) -> Result<Self> {
        let rule = KeyPointRule {
            still: match columns.velocity_key {
                Some(_) => {
                    Stillness::JointVelocity(settings.still_velocity.unwrap_or(STILL_VELOCITY))
                }
                None => {
                    Stillness::Displacement(settings.still_epsilon.unwrap_or(STILL_SPEED / fps))
                }
            },
            gripper_threshold: columns
                .gripper
                .as_ref()
                .map(|_| settings.gripper_threshold.unwrap_or_else(|| middle(&demonstrations))),
        };
        let found: Vec<Vec<KeyPoint>> = demonstrations
            .iter()
            .map(|it| key_points(it, rule.still, rule.gripper_threshold.unwrap_or_default()))
            .collect();
        let splits = splits(&demonstrations, settings)?;
        let sources: Vec<Source<'_>> = demonstrations
            .iter()
            .zip(&found)
            .zip(&splits)
            .map(|((demonstration, key_points), split)| Source {
                demonstration,
                key_points,
                split: *split,
                held_out_tasks: &settings.held_out_tasks,
            })
            .collect();
        let questions = questions(&sources, &settings.prompts(), &settings.questions)?;
        Ok(Self { columns, fps, rule, demonstrations, key_points: found, splits, questions })
    }

    /// The frames that questions are about: indices of demonstrations, and frames, in order.
    pub fn frames(&self) -> Vec<(usize, usize)> {
        let frames = self.questions.questions.iter().map(|it| (it.start.source, it.start.frame));
        frames.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The numbers of episodes by task and split; an episode counts for each of its tasks.
    pub fn episodes(&self) -> BTreeMap<&str, BTreeMap<Split, usize>> {
        let mut counts: BTreeMap<&str, BTreeMap<Split, usize>> = BTreeMap::new();
        for (demonstration, split) in self.demonstrations.iter().zip(&self.splits) {
            let tasks: BTreeSet<&str> =
                demonstration.tasks.iter().map(|it| it.task.as_str()).collect();
            for task in tasks {
                *counts.entry(task).or_default().entry(*split).or_default() += 1;
            }
        }
        counts
    }
}

/// The middle between the smallest and the largest opening of the gripper.
fn middle(demonstrations: &[Demonstration]) -> f64 {
    let widths = || demonstrations.iter().flat_map(|it| it.gripper.iter().copied());
    let (low, high) =
        (widths().fold(f64::INFINITY, f64::min), widths().fold(f64::NEG_INFINITY, f64::max));
    if low.is_finite() && high.is_finite() { (low + high) / 2.0 } else { 0.0 }
}

/// The splits of the demonstrations: held-out tasks, and the others by episode.
fn splits(demonstrations: &[Demonstration], settings: &Settings) -> Result<Vec<Split>> {
    let tasks = demonstrations.iter().flat_map(|it| &it.tasks).map(|span| span.task.as_str());
    let tasks: BTreeSet<&str> = tasks.collect();
    for held_out in &settings.held_out_tasks {
        if !tasks.iter().any(|task| is_same_task(task, held_out)) {
            let tasks: Vec<String> = tasks.iter().map(|task| format!("`{task}`")).collect();
            let tasks = tasks.join(", ");
            return Err(Error::Option {
                option: "--held-out-tasks",
                reason: format!("names no task: `{held_out}`; there are {tasks}"),
            });
        }
    }
    let is_held_out = |it: &Demonstration| {
        let mut tasks = it.tasks.iter().map(|span| span.task.as_str());
        tasks.any(|task| settings.held_out_tasks.iter().any(|other| is_same_task(task, other)))
    };
    let others = demonstrations.iter().filter(|it| !is_held_out(it));
    let others: Vec<(usize, &str)> = others.map(|it| (it.episode, it.task(0))).collect();
    let mut of_others = split(&others, settings.shares, settings.questions.seed).into_iter();
    let splits = demonstrations.iter().map(|it| match is_held_out(it) {
        true => Split::HeldOut,
        false => of_others.next().unwrap_or(Split::Train),
    });
    Ok(splits.collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::columns::Gripper;
    use crate::prompt::AnswerForm;
    use crate::questions::Distractors;
    use crate::scripted::{Scripted, TASKS};

    pub(crate) fn settings() -> Settings {
        Settings {
            columns: ColumnOptions::default(),
            still_velocity: None,
            still_epsilon: None,
            gripper_threshold: None,
            shares: Shares::default(),
            held_out_tasks: Vec::new(),
            annotations: None,
            questions: QuestionOptions {
                stride: 10,
                form: AnswerForm::MultipleChoice,
                distractors: Distractors::Keypoints,
                min_distance: 0.05,
                movement_epsilon: 0.005,
                balance_kinds: false,
                seed: 0,
            },
            style: PromptStyle::Paper,
            decimals: 3,
            robot: Robot::default(),
        }
    }

    pub(crate) fn columns() -> Columns {
        Columns {
            camera: "observation.images.front".to_owned(),
            state_key: "observation.state".to_owned(),
            position_dims: [0, 1, 2],
            position_scale: 1.0,
            gripper: Some(Gripper { key: "observation.state".to_owned(), dim: 3 }),
            velocity_key: None,
        }
    }

    fn prepare(settings: &Settings) -> Result<Prepared> {
        let scripted = Scripted::new(1, 100);
        Prepared::of(columns(), 10.0, scripted.demonstrations, settings)
    }

    #[test]
    fn without_velocities_stops_are_by_displacement_at_the_frame_rate() {
        let prepared = prepare(&settings()).unwrap();
        let expected =
            KeyPointRule { still: Stillness::Displacement(0.005), gripper_threshold: Some(0.5) };
        assert_eq!(prepared.rule, expected);
        assert!(prepared.key_points.iter().all(|of| of.len() >= 4));
    }

    #[test]
    fn with_velocities_stops_are_by_velocity() {
        let scripted = Scripted::new(1, 20);
        let columns = Columns { velocity_key: Some("v".to_owned()), ..columns() };
        let still = |settings: &Settings| {
            let demonstrations = scripted.demonstrations.clone();
            Prepared::of(columns.clone(), 10.0, demonstrations, settings).unwrap().rule.still
        };
        assert_eq!(still(&settings()), Stillness::JointVelocity(0.1));
        let slower = Settings { still_velocity: Some(0.02), ..settings() };
        assert_eq!(still(&slower), Stillness::JointVelocity(0.02));
    }

    #[test]
    fn held_out_tasks_are_in_no_other_split() {
        let held_out = vec![TASKS[1].to_uppercase()];
        let prepared = prepare(&Settings { held_out_tasks: held_out, ..settings() }).unwrap();
        for (demonstration, split) in prepared.demonstrations.iter().zip(&prepared.splits) {
            assert_eq!(*split == Split::HeldOut, demonstration.task(0) == TASKS[1]);
        }
        let held_out = prepared.questions.questions.iter().filter(|it| it.split == Split::HeldOut);
        assert!(held_out.count() > 100);
    }

    #[test]
    fn an_unknown_held_out_task_is_reported_with_the_tasks() {
        let settings = Settings { held_out_tasks: vec!["fly".to_owned()], ..settings() };
        let error = prepare(&settings).unwrap_err().to_string();
        assert!(
            error.contains("`fly`") && TASKS.iter().all(|task| error.contains(task)),
            "{error}"
        );
    }

    #[test]
    fn no_episode_is_in_two_splits() {
        let prepared = prepare(&settings()).unwrap();
        let mut of_episode: BTreeMap<usize, BTreeSet<Split>> = BTreeMap::new();
        for question in &prepared.questions.questions {
            of_episode.entry(question.start.source).or_default().insert(question.split);
        }
        assert!(of_episode.values().all(|splits| splits.len() == 1));
    }

    #[test]
    fn settings_out_of_range_name_the_option() {
        let base = settings();
        for (settings, option) in [
            (Settings { decimals: 0, ..base.clone() }, "--decimals"),
            (Settings { still_velocity: Some(-1.0), ..base.clone() }, "--still-velocity"),
            (Settings { still_epsilon: Some(f64::NAN), ..base.clone() }, "--still-epsilon"),
            (Settings { gripper_threshold: Some(f64::NAN), ..base.clone() }, "--gripper-threshold"),
            (
                Settings {
                    columns: ColumnOptions {
                        position_scale: Some(0.0),
                        ..ColumnOptions::default()
                    },
                    ..base.clone()
                },
                "--position-scale",
            ),
            (
                Settings {
                    questions: QuestionOptions { stride: 0, ..base.questions },
                    ..base.clone()
                },
                "--stride",
            ),
        ] {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
    }
}
