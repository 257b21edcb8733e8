//! The files of a data set that was written.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use embodied_r_data::parquet::ColumnFile;
use embodied_r_lerobot::{Dataset, Version, VideoCodec};
use serde_json::Value;

use crate::demos::{CAMERA, files, write};

fn names(dir: &Path) -> Vec<String> {
    files(dir).keys().map(|path| path.display().to_string()).collect()
}

#[test]
fn the_files_are_those_of_each_version() {
    let folder = tempfile::tempdir().unwrap();
    let v21 = write(folder.path(), Version::V21, VideoCodec::H264);
    assert_eq!(
        names(&v21),
        [
            "data/chunk-000/episode_000000.parquet",
            "data/chunk-000/episode_000001.parquet",
            "data/chunk-000/episode_000002.parquet",
            "meta/episodes.jsonl",
            "meta/episodes_stats.jsonl",
            "meta/info.json",
            "meta/tasks.jsonl",
            "videos/chunk-000/observation.images.front/episode_000000.mp4",
            "videos/chunk-000/observation.images.front/episode_000001.mp4",
            "videos/chunk-000/observation.images.front/episode_000002.mp4",
        ]
    );
    let folder = tempfile::tempdir().unwrap();
    let v30 = write(folder.path(), Version::V30, VideoCodec::H264);
    assert_eq!(
        names(&v30),
        [
            "data/chunk-000/file-000.parquet",
            "meta/episodes/chunk-000/file-000.parquet",
            "meta/info.json",
            "meta/stats.json",
            "meta/tasks.parquet",
            "videos/observation.images.front/chunk-000/file-000.mp4",
        ]
    );
}

#[test]
fn the_needed_files_are_all_but_the_statistics() {
    for version in [Version::V21, Version::V30] {
        let folder = tempfile::tempdir().unwrap();
        let dir = write(folder.path(), version, VideoCodec::H264);
        let needed = Dataset::open(&dir).unwrap().info().needed_files(&[CAMERA]);
        let fits = |name: &str, pattern: &str| {
            let (name, pattern) = (name.split('/'), pattern.split('/'));
            name.clone().count() == pattern.clone().count()
                && name.zip(pattern).all(|(part, pattern)| match pattern.split_once('*') {
                    Some((before, after)) => part.starts_with(before) && part.ends_with(after),
                    None => part == pattern,
                })
        };
        for name in names(&dir) {
            let is_needed = needed.iter().any(|pattern| fits(&name, pattern));
            assert_eq!(is_needed, !name.contains("stats"), "{name} {needed:?}");
        }
    }
}

#[test]
fn videos_have_a_key_frame_every_two_frames_and_exact_times() {
    for codec in [VideoCodec::H264, VideoCodec::Av1] {
        let folder = tempfile::tempdir().unwrap();
        let dir = write(folder.path(), Version::V30, codec);
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0"])
            .arg(dir.join("videos/observation.images.front/chunk-000/file-000.mp4"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let packets: Vec<(f64, bool)> = text
            .lines()
            .map(|line| line.split_once(',').unwrap())
            .map(|(time, flags)| (time.parse().unwrap(), flags.starts_with('K')))
            .collect();
        // Episodes of 5, 8 and 3 frames, each starting with a key frame.
        let keys = [0, 2, 4, 5, 7, 9, 11, 13, 15];
        for (index, (time, is_key)) in packets.iter().enumerate() {
            assert_eq!((*time * 1e6).round() as usize, 100_000 * index);
            assert_eq!(*is_key, keys.contains(&index), "{codec:?} {index}");
        }
        assert_eq!(packets.len(), 16);
    }
}

#[test]
fn the_metadata_of_v30_has_the_columns_of_lerobot() {
    let folder = tempfile::tempdir().unwrap();
    let dir = write(folder.path(), Version::V30, VideoCodec::H264);
    let path = dir.join("meta/episodes/chunk-000/file-000.parquet");
    let file = ColumnFile::open(&path).unwrap();
    let numbers = |column: &str, width: usize| {
        file.read(&[column], 0..3).unwrap().number_rows(column, width).unwrap()
    };
    assert_eq!(numbers("dataset_from_index", 1), [0.0, 5.0, 13.0]);
    assert_eq!(numbers("dataset_to_index", 1), [5.0, 13.0, 16.0]);
    assert_eq!(numbers("videos/observation.images.front/from_timestamp", 1), [0.0, 0.5, 1.3]);
    assert_eq!(numbers("videos/observation.images.front/to_timestamp", 1), [0.5, 1.3, 1.6]);
    assert_eq!(numbers("stats/index/max", 1), [4.0, 12.0, 15.0]);
    assert_eq!(numbers("stats/timestamp/count", 1), [5.0, 8.0, 3.0]);
    assert_eq!(numbers("stats/observation.state/q99", 3).len(), 9);
    let mean = numbers("stats/observation.images.front/mean", 3);
    assert!((mean[0] - 54.0 / 255.0).abs() < 1e-9, "{mean:?}");
    for field in ["min", "max", "std", "q01", "q10", "q50", "q90"] {
        assert!(file.has(&format!("stats/action/{field}")), "{field}");
    }
}

#[test]
fn statistics_have_the_shapes_of_lerobot() {
    let folder = tempfile::tempdir().unwrap();
    let dir = write(folder.path(), Version::V30, VideoCodec::H264);
    let text = std::fs::read_to_string(dir.join("meta/stats.json")).unwrap();
    let stats: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&text).unwrap();
    assert_eq!(
        stats[CAMERA]["min"],
        serde_json::json!([[[40.0 / 255.0]], [[40.0 / 255.0]], [[40.0 / 255.0]]])
    );
    assert_eq!(stats["observation.state"]["count"], serde_json::json!([16]));
    assert_eq!(stats["episode_index"]["max"], serde_json::json!([2]));
    assert_eq!(stats["action"].len(), 10);
    let folder = tempfile::tempdir().unwrap();
    let dir = write(folder.path(), Version::V21, VideoCodec::H264);
    let text = std::fs::read_to_string(dir.join("meta/episodes_stats.jsonl")).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["episode_index"], 2);
    assert_eq!(last["stats"]["frame_index"]["max"], serde_json::json!([2]));
    assert_eq!(last["stats"]["action"].as_object().unwrap().len(), 5);
}
