//! Questions about LeRobot data sets of other layouts than the program's own.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use embodied_r_data::Progress;
use embodied_r_data::parquet::{Column, write_table};
use embodied_r_data::progress::Silent;
use embodied_r_lerobot::{Dataset, TaskSpan};
use embodied_r_robot::{
    AnswerForm, ColumnOptions, Demonstration, Distractors, Error, Gripper, GripperColumn, Movement,
    Position, Prepared, PromptStyle, QuestionOptions, Robot, Settings, Shares, Split, Stillness,
    key_points,
};
use serde_json::{Value, json};

const FPS: f64 = 10.0;
const FRAMES: usize = 60;
const TASKS: [&str; 2] = ["reach the cup", "carry the cup"];

/// A feature: its key, type and names.
type Described<'a> = (&'a str, &'a str, &'a [&'a str]);

/// An episode: the task of each frame, and a column for each feature.
struct Episode {
    tasks: Vec<usize>,
    columns: Vec<Column>,
}

/// Writes a data set of version 2.1 without videos, and opens it.
fn data_set(dir: &Path, features: &[Described<'_>], episodes: Vec<Episode>) -> Dataset {
    let mut described = json!({
        "observation.images.front": {"dtype": "image", "shape": [4, 4, 3], "names": null},
    });
    for (key, dtype, names) in features {
        described[*key] = json!({"dtype": dtype, "shape": [names.len()], "names": names});
    }
    let info = json!({
        "codebase_version": "v2.1", "robot_type": "franka", "fps": FPS, "chunks_size": 1000,
        "total_episodes": episodes.len(), "total_frames": FRAMES * episodes.len(),
        "total_tasks": TASKS.len(), "features": described, "video_path": null,
        "data_path": "data/{episode_index:06d}.parquet",
    });
    let lines = |lines: Vec<Value>| lines.iter().map(|it| format!("{it}\n")).collect::<String>();
    fs::create_dir_all(dir.join("meta")).unwrap();
    fs::write(dir.join("meta/info.json"), info.to_string()).unwrap();
    let named = (0..).zip(TASKS).map(|(index, task)| json!({"task_index": index, "task": task}));
    fs::write(dir.join("meta/tasks.jsonl"), lines(named.collect())).unwrap();
    let line = |index| json!({"episode_index": index, "tasks": [TASKS[0]], "length": FRAMES});
    let listed = (0..episodes.len()).map(line);
    fs::write(dir.join("meta/episodes.jsonl"), lines(listed.collect())).unwrap();
    for (index, Episode { tasks, columns }) in episodes.into_iter().enumerate() {
        let integers = |of: &dyn Fn(usize) -> usize| {
            Column::Integers((0..FRAMES).map(|frame| of(frame) as i64).collect())
        };
        let keys = features.iter().map(|(key, ..)| *key);
        let mut table: Vec<(&str, Column)> = keys.zip(columns).collect();
        let times = (0..FRAMES).map(|frame| frame as f64 / FPS);
        table.push(("timestamp", Column::Floats(times.collect())));
        table.push(("frame_index", integers(&|frame| frame)));
        table.push(("episode_index", integers(&|_| index)));
        table.push(("index", integers(&|frame| index * FRAMES + frame)));
        table.push(("task_index", integers(&|frame| tasks[frame])));
        write_table(&dir.join(format!("data/{index:06}.parquet")), table).unwrap();
    }
    Dataset::open(dir).unwrap()
}

fn settings(columns: ColumnOptions) -> Settings {
    Settings {
        columns,
        still_velocity: None,
        still_epsilon: None,
        gripper_threshold: None,
        shares: Shares::default(),
        held_out_tasks: Vec::new(),
        annotations: None,
        questions: QuestionOptions {
            stride: 3,
            form: AnswerForm::MultipleChoice,
            distractors: Distractors::Keypoints,
            min_distance: 0.01,
            movement_epsilon: 0.005,
            balance_kinds: false,
            seed: 0,
        },
        style: PromptStyle::Paper,
        decimals: 3,
        robot: Robot::default(),
    }
}

fn prepared(dataset: &Dataset) -> Prepared {
    Prepared::new(dataset, &settings(ColumnOptions::default()), &Silent).unwrap()
}

/// An episode whose positions are on a grid of 5 mm, the bound on displacements at this frame rate.
fn raw(episode: usize) -> Demonstration {
    let cell = |at: usize| (at * 7 + episode * 13) % 97;
    let position = |frame: usize| {
        let x = frame / 2 + cell(frame / 9) * usize::from(frame % 20 > 12);
        let on_grid = |steps: usize| (40 + steps) as f64 * 5.0 / 1000.0;
        [on_grid(x), on_grid(cell(3)) - 0.3, on_grid(frame / 3) + 0.6]
    };
    let opening = |frame: usize| f64::from(u8::from(frame % 25 < 14));
    Demonstration {
        episode,
        tasks: vec![TaskSpan { start: 0, task: TASKS[0].to_owned() }],
        positions: (0..FRAMES).map(position).collect(),
        gripper: (0..FRAMES).map(opening).collect(),
        joint_speeds: Vec::new(),
        annotations: Vec::new(),
    }
}

/// The state of all frames: position and gripper.
fn states(raw: &Demonstration) -> Column {
    let rows = raw.positions.iter().zip(&raw.gripper);
    Column::FloatLists(rows.map(|([x, y, z], open)| vec![*x, *y, *z, *open]).collect())
}

fn lists(positions: &[Position]) -> Column {
    Column::FloatLists(positions.iter().map(|it| it.to_vec()).collect())
}

fn episodes(columns: impl Fn(Demonstration) -> Vec<Column>) -> Vec<Episode> {
    let episode = |index| Episode { tasks: vec![0; FRAMES], columns: columns(raw(index)) };
    (0..8).map(episode).collect()
}

#[test]
fn key_points_and_movements_of_float64_columns_are_those_of_the_raw_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let features: [Described<'_>; 1] =
        [("observation.state", "float64", &["x", "y", "z", "gripper"])];
    let columns = |raw: Demonstration| vec![states(&raw)];
    let prepared = prepared(&data_set(folder.path(), &features, episodes(columns)));
    for (episode, found) in prepared.key_points.iter().enumerate() {
        assert_eq!(prepared.demonstrations[episode], raw(episode));
        assert_eq!(*found, key_points(&raw(episode), Stillness::Displacement(0.005), 0.5));
    }
    assert!(!prepared.questions.questions.is_empty());
    for question in &prepared.questions.questions {
        let start = question.start;
        let positions = raw(start.source).positions;
        let expected = Movement::between(positions[start.frame], positions[start.key_point], 0.005);
        assert_eq!(start.movement, expected);
    }
}

/// A data set with the layout of DROID. The action closes the gripper a frame later.
fn droid(dir: &Path) -> Dataset {
    let features: [Described<'_>; 4] = [
        ("action", "float32", &["dx", "grip"]),
        ("observation.state", "float32", &["joint_0", "joint_1", "gripper"]),
        ("observation.state.cartesian_position", "float64", &["x", "y", "z"]),
        ("observation.state.gripper_position", "float32", &["gripper"]),
    ];
    let columns = |raw: Demonstration| {
        let action = (0..FRAMES).map(|frame| vec![0.0, raw.gripper[frame.saturating_sub(1)]]);
        vec![
            Column::FloatLists(action.collect()),
            Column::FloatLists(vec![vec![0.0; 3]; FRAMES]),
            lists(&raw.positions),
            Column::Floats(raw.gripper),
        ]
    };
    data_set(dir, &features, episodes(columns))
}

#[test]
fn position_and_gripper_in_features_of_their_own_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = prepared(&droid(folder.path()));
    assert_eq!(prepared.columns.state_key, "observation.state.cartesian_position");
    let own = Gripper { key: "observation.state.gripper_position".to_owned(), dim: 0 };
    assert_eq!(prepared.columns.gripper, Some(own));
    for (episode, found) in prepared.key_points.iter().enumerate() {
        assert_eq!(*found, key_points(&raw(episode), Stillness::Displacement(0.005), 0.5));
        assert!(found.iter().any(|it| it.frame == 14), "the gripper closes");
    }
}

#[test]
fn the_gripper_is_read_from_an_action() {
    let folder = tempfile::tempdir().unwrap();
    let gripper = GripperColumn::Key { key: "action".to_owned(), dim: Some(1) };
    let columns = ColumnOptions { gripper, ..ColumnOptions::default() };
    let prepared = Prepared::new(&droid(folder.path()), &settings(columns), &Silent).unwrap();
    for of in &prepared.key_points {
        assert!(of.iter().any(|it| it.frame == 15) && of.iter().all(|it| it.frame != 14));
    }
}

#[test]
fn a_task_that_changes_within_an_episode_is_that_of_each_frame() {
    let folder = tempfile::tempdir().unwrap();
    let features: [Described<'_>; 1] =
        [("observation.state", "float32", &["x", "y", "z", "gripper"])];
    let is_carried = |episode: usize, frame: usize| episode > 3 && frame >= 20;
    let expected = |episode, frame| TASKS[usize::from(is_carried(episode, frame))];
    let columns = |raw: Demonstration| vec![states(&raw)];
    let mut changing = episodes(columns);
    for (episode, it) in changing.iter_mut().enumerate() {
        it.tasks = (0..FRAMES).map(|frame| usize::from(is_carried(episode, frame))).collect();
    }
    let dataset = data_set(folder.path(), &features, changing);
    let found = prepared(&dataset);
    let with_defaults = settings(ColumnOptions::default());
    let mut carried = 0;
    for question in &found.questions.questions {
        let (source, frame) = (question.start.source, question.start.frame);
        let record = with_defaults.records().question(question, &found.demonstrations[source]);
        assert_eq!(record.extra["task"], expected(source, frame), "{source} {frame}");
        assert!(record.question.contains(expected(source, frame)), "{}", record.question);
        carried += usize::from(is_carried(source, frame));
    }
    assert!(carried > 10, "{carried}");

    let held_out = Settings { held_out_tasks: vec!["Carry the cup".to_owned()], ..with_defaults };
    for question in Prepared::new(&dataset, &held_out, &Silent).unwrap().questions.questions {
        let (source, frame) = (question.start.source, question.start.frame);
        assert_eq!(question.split == Split::HeldOut, source > 3, "{source}");
        assert!(source <= 3 || is_carried(source, frame), "{source} {frame}");
    }
}

/// Keeps warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn warn(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
    fn finish(&self) {}
}

#[test]
fn millimetres_are_doubted_and_converted_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let features: [Described<'_>; 2] = [
        ("observation.state", "float64", &["x", "y", "z"]),
        ("observation.gripper", "bool", &["open"]),
    ];
    let columns = |raw: Demonstration| {
        let scaled: Vec<Position> = raw.positions.iter().map(|it| it.map(|x| x * 1e3)).collect();
        let open = raw.gripper.into_iter().map(|open| open as i64);
        vec![lists(&scaled), Column::Integers(open.collect())]
    };
    let dataset = data_set(folder.path(), &features, episodes(columns));
    let read = |position_scale| {
        let columns = ColumnOptions { position_scale, ..ColumnOptions::default() };
        let warnings = Warnings::default();
        let prepared = Prepared::new(&dataset, &settings(columns), &warnings);
        (prepared, warnings.0.into_inner().unwrap())
    };
    let (_, warnings) = read(None);
    assert!(warnings[0].contains("`--position-scale`, such as 0.001"), "{warnings:?}");
    let (converted, warnings) = read(Some(0.001));
    assert_eq!(warnings, Vec::<String>::new());
    let converted = converted.unwrap();
    for (found, expected) in converted.demonstrations[3].positions.iter().zip(raw(3).positions) {
        assert!((0..3).all(|axis| (found[axis] - expected[axis]).abs() < 1e-9));
    }
    assert!(matches!(read(Some(-1.0)).0, Err(Error::Option { option: "--position-scale", .. })));
}
