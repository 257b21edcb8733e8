//! Data sets that LeRobot wrote, by `scripts/parity/check_lerobot.py`.

use std::path::PathBuf;

use embodied_r_lerobot::{Dataset, Error};
use serde_json::Value;

const FRONT: &str = "observation.images.front";
const WRIST: &str = "observation.images.wrist";

fn fixture(version: &str) -> (Dataset, Vec<Value>) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version);
    let expected = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    (Dataset::open(&dir).unwrap(), serde_json::from_str(&expected).unwrap())
}

#[test]
fn values_times_and_tasks_are_those_that_lerobot_was_given() {
    for version in ["v2.1", "v3.0"] {
        let (dataset, expected) = fixture(version);
        assert_eq!((dataset.fps(), dataset.robot_type()), (10.0, Some("so100")));
        assert_eq!(dataset.cameras(), [FRONT, WRIST]);
        let state = &dataset.features()["observation.state"];
        assert_eq!(state.names.as_ref().unwrap().join(" "), "x y z");
        let mut seen = 0;
        dataset
            .read_episodes(&["observation.state", "action"], |episode| {
                let expected = &expected[episode.index];
                assert_eq!(expected["task"], episode.tasks[0].task);
                let tasks: Vec<String> = episode.tasks.into_iter().map(|it| it.task).collect();
                assert_eq!(dataset.episodes()[episode.index].tasks, tasks);
                for (key, column) in &episode.columns {
                    let values = expected["columns"][key].as_array().unwrap();
                    let values: Vec<f64> = values
                        .iter()
                        .map(|value| f64::from(value.as_f64().unwrap() as f32))
                        .collect();
                    assert_eq!(column.values, values, "{version} {key}");
                }
                let times =
                    (0..episode.timestamps.len()).map(|frame| f64::from(frame as f32 / 10.0));
                assert!(times.eq(episode.timestamps.iter().copied()));
                seen += 1;
                Ok::<_, Error>(())
            })
            .unwrap();
        assert_eq!(seen, expected.len());
    }
}

#[test]
fn frames_of_videos_and_of_parquet_files_are_those_that_lerobot_was_given() {
    for version in ["v2.1", "v3.0"] {
        let (dataset, expected) = fixture(version);
        for (episode, expected) in expected.iter().enumerate() {
            let gray = expected["gray"].as_array().unwrap();
            let all: Vec<usize> = (0..gray.len()).rev().collect();
            let front = dataset.frames(FRONT, episode, &all).unwrap();
            let wrist = dataset.frames(WRIST, episode, &all).unwrap();
            for (frame, (front, wrist)) in all.into_iter().zip(front.iter().zip(&wrist)) {
                let gray = gray[frame].as_u64().unwrap() as u8;
                assert_eq!((front.dimensions(), wrist.dimensions()), ((64, 64), (24, 16)));
                assert_eq!(wrist.get_pixel(3, 3).0, [gray, gray, 7], "{version} {episode} {frame}");
                let value = front.get_pixel(30, 30).0[1];
                assert!(value.abs_diff(gray) <= 3, "{version} {episode} {frame}: {value} {gray}");
            }
        }
    }
}

#[test]
fn a_feature_that_is_no_camera_and_a_frame_that_does_not_exist_are_refused() {
    let (dataset, _) = fixture("v3.0");
    let refusal = |camera: &str, episode, frame| {
        dataset.frames(camera, episode, &[frame]).unwrap_err().to_string()
    };
    let error = refusal("action", 0, 0);
    assert!(error.contains("no camera `action`") && error.contains(WRIST), "{error}");
    assert!(refusal(FRONT, 3, 0).contains("the data set has 3 episodes"));
    assert!(refusal(WRIST, 0, 5).contains("it has 5 frames"));
    let error = dataset.read_episodes(&[FRONT], |_| Ok::<_, Error>(())).unwrap_err().to_string();
    assert!(
        error.contains("no feature of numbers") && error.contains("observation.state"),
        "{error}"
    );
}
