//! Data sets that are damaged, wrong, or made to do harm.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use embodied_r_data::parquet::{Column as Values, ColumnFile, write_table};
use embodied_r_lerobot::{Dataset, Error, FrameId, Version, VideoCodec};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::demos::{CAMERA, LENGTHS, STATE, files, write};

const EPISODES: &str = "meta/episodes/chunk-000/file-000.parquet";
const DATA: &str = "data/chunk-000/file-000.parquet";

/// A copy of the data set, which is written once per version.
fn demos(version: Version) -> (TempDir, PathBuf) {
    static WRITTEN: [OnceLock<BTreeMap<PathBuf, Vec<u8>>>; 2] = [OnceLock::new(), OnceLock::new()];
    let written = WRITTEN[usize::from(version == Version::V30)].get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        files(&write(folder.path(), version, VideoCodec::H264))
    });
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demos");
    for (path, bytes) in written {
        embodied_r_files::write_atomic(&dir.join(path), bytes).unwrap();
    }
    (folder, dir)
}

fn open_error(dir: &Path) -> String {
    Dataset::open(dir).unwrap_err().to_string()
}

fn read_error(dir: &Path) -> String {
    let dataset = Dataset::open(dir).unwrap();
    dataset.read_episodes(&[STATE], |_| Ok::<_, Error>(())).unwrap_err().to_string()
}

fn frames_error(dir: &Path) -> String {
    Dataset::open(dir).unwrap().frames(CAMERA, 1, &[0]).unwrap_err().to_string()
}

fn assert_names(error: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

/// Changes a field of `meta/info.json`, such as `/features/action/shape`.
fn set_info(dir: &Path, field: &str, value: Value) {
    let path = dir.join("meta/info.json");
    let mut info: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    *info.pointer_mut(field).unwrap() = value;
    fs::write(path, info.to_string()).unwrap();
}

/// Changes the lines of a file.
fn set_lines(dir: &Path, file: &str, change: impl Fn(&mut Vec<String>)) {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(path, lines.join("\n")).unwrap();
}

/// The columns of the data file of v3.0, of which one is changed.
fn set_data(dir: &Path, column: &str, change: impl Fn(&mut Vec<f64>)) {
    let path = dir.join(DATA);
    let file = ColumnFile::open(&path).unwrap();
    let widths = [(STATE, 3), ("action", 1), ("timestamp", 1)];
    let indices = ["frame_index", "episode_index", "index", "task_index"];
    let columns = widths.into_iter().chain(indices.map(|name| (name, 1)));
    let columns = columns.map(|(name, width)| {
        let table = file.read(&[name], 0..file.len()).unwrap();
        let mut values = table.number_rows(name, width).unwrap();
        if name == column {
            change(&mut values);
        }
        let values = match name {
            STATE => Values::FloatLists(values.chunks(3).map(<[f64]>::to_vec).collect()),
            _ if indices.contains(&name) => {
                Values::Integers(values.into_iter().map(|it| it as i64).collect())
            }
            _ => Values::Floats(values),
        };
        (name, values)
    });
    write_table(&path, columns.collect()).unwrap();
}

/// Changes a column of whole numbers of the episodes' metadata of v3.0.
fn set_episodes(dir: &Path, column: &str, values: Vec<f64>) {
    let path = dir.join(EPISODES);
    let file = ColumnFile::open(&path).unwrap();
    let video = |field: &str| format!("videos/{CAMERA}/{field}");
    let names =
        ["episode_index", "length", "data/chunk_index", "data/file_index"].map(str::to_owned);
    let bounds = ["dataset_from_index", "dataset_to_index"].map(str::to_owned);
    let videos = ["chunk_index", "file_index", "from_timestamp"].map(video);
    let names: Vec<String> = names.into_iter().chain(bounds).chain(videos).collect();
    let mut columns: Vec<(&str, Values)> = names
        .iter()
        .map(|name| {
            let read = || file.read(&[name], 0..3).unwrap().number_rows(name, 1).unwrap();
            (name.as_str(), Values::Floats(if name == column { values.clone() } else { read() }))
        })
        .collect();
    let tasks = vec![Some(vec!["push the button".to_owned()]); 3];
    columns.push(("tasks", Values::OptionalStringLists(tasks)));
    write_table(&path, columns).unwrap();
}

#[test]
fn a_missing_file_is_named() {
    for (version, file) in [
        (Version::V21, "meta/info.json"),
        (Version::V21, "meta/episodes.jsonl"),
        (Version::V21, "meta/tasks.jsonl"),
        (Version::V21, "data/chunk-000/episode_000001.parquet"),
        (Version::V30, EPISODES),
        (Version::V30, "meta/tasks.parquet"),
        (Version::V30, DATA),
    ] {
        let (_folder, dir) = demos(version);
        fs::remove_file(dir.join(file)).unwrap();
        assert_names(&open_error(&dir), &[file, "is missing"]);
    }
    assert_names(&open_error(Path::new("/absent/demos")), &["`/absent/demos` is missing"]);
}

#[test]
fn a_missing_video_is_named_before_any_is_decoded() {
    let (_folder, dir) = demos(Version::V21);
    let file = "videos/chunk-000/observation.images.front/episode_000002.mp4";
    fs::remove_file(dir.join(file)).unwrap();
    let dataset = Dataset::open(&dir).unwrap();
    assert_names(&dataset.check_camera(CAMERA).unwrap_err().to_string(), &[file, "`video_path`"]);
    let wanted = [0, 2].map(|episode| FrameId { episode, frame: 0 });
    let error = dataset.for_each_frame(CAMERA, &wanted, |_, _| -> Result<(), Error> {
        panic!("a frame was decoded");
    });
    assert_names(&error.unwrap_err().to_string(), &[file]);
    assert_eq!(dataset.frames(CAMERA, 1, &[0]).unwrap().len(), 1);
}

#[test]
fn wrong_counts_in_info_are_named_with_the_true_ones() {
    for version in [Version::V21, Version::V30] {
        for (field, count) in [("total_episodes", 3), ("total_frames", 16), ("total_tasks", 2)] {
            let (_folder, dir) = demos(version);
            set_info(&dir, &format!("/{field}"), json!(99));
            let stated = format!("`{field}`");
            assert_names(
                &open_error(&dir),
                &[&stated, "is 99", "info.json", &format!("has {count} ")],
            );
        }
    }
}

#[test]
fn episodes_in_any_order_are_sorted() {
    let (_folder, dir) = demos(Version::V21);
    set_lines(&dir, "meta/episodes.jsonl", |lines| lines.reverse());
    let dataset = Dataset::open(&dir).unwrap();
    let lengths: Vec<usize> = dataset.episodes().iter().map(|episode| episode.length).collect();
    assert_eq!(lengths, LENGTHS);
}

#[test]
fn repeated_and_missing_episodes_are_named() {
    let (_folder, dir) = demos(Version::V21);
    set_lines(&dir, "meta/episodes.jsonl", |lines| lines.push(lines[1].clone()));
    assert_names(&open_error(&dir), &["`episode_index` of episode 1", "episodes.jsonl", "twice"]);
    set_lines(&dir, "meta/episodes.jsonl", |lines| drop((lines.pop(), lines.remove(1))));
    assert_names(&open_error(&dir), &["episodes.jsonl", "episode 1 is missing"]);
    let (_folder, dir) = demos(Version::V30);
    set_episodes(&dir, "episode_index", vec![0.0, 2.0, 2.0]);
    assert_names(&open_error(&dir), &["file-000.parquet", "episode 1 is missing"]);
}

#[test]
fn wrong_lines_are_named() {
    for (line, parts) in [
        ("{", &["line 2", "episodes.jsonl", "invalid"][..]),
        ("[1]", &["line 2", "invalid"]),
        (r#"{"episode_index": 1}"#, &["`length` in line 2", "is missing"]),
        (r#"{"episode_index": -1, "length": 2}"#, &["`episode_index` in line 2", "`-1`"]),
        (r#"{"episode_index": 1, "length": 0}"#, &["`length` of episode 1", "is 0"]),
        (r#"{"episode_index": 1, "length": 8, "tasks": 3}"#, &["`tasks` in line 2"]),
    ] {
        let (_folder, dir) = demos(Version::V21);
        set_lines(&dir, "meta/episodes.jsonl", |lines| lines[1] = line.to_owned());
        assert_names(&open_error(&dir), parts);
    }
    let (_folder, dir) = demos(Version::V21);
    set_lines(&dir, "meta/tasks.jsonl", |lines| lines[1] = lines[0].clone());
    assert_names(&open_error(&dir), &["`task_index`", "tasks.jsonl", "twice"]);
}

#[test]
fn a_line_without_an_end_is_refused_before_it_is_in_memory() {
    let (_folder, dir) = demos(Version::V21);
    fs::write(dir.join("meta/episodes.jsonl"), vec![b' '; 2 << 20]).unwrap();
    assert_names(&open_error(&dir), &["episodes.jsonl", "longer than 1 MiB"]);
}

#[test]
fn values_that_are_not_finite_are_named_with_episode_and_frame() {
    for value in [f64::NAN, f64::INFINITY, 1e300] {
        let (_folder, dir) = demos(Version::V30);
        set_data(&dir, STATE, |values| values[3 * 7 + 1] = value);
        let parts = ["`observation.state` of episode 1", "file-000.parquet", "index 1 of frame 2"];
        assert_names(&read_error(&dir), &parts);
    }
    let (_folder, dir) = demos(Version::V30);
    set_data(&dir, "timestamp", |values| values[6] = f64::NAN);
    assert_names(&read_error(&dir), &["`timestamp` of episode 1", "NaN at frame 1"]);
}

#[test]
fn rows_that_contradict_the_metadata_are_named() {
    for (column, row, value, parts) in [
        ("frame_index", 6, 7.0, &["`frame_index` of episode 1", "is 7 in row 1"][..]),
        (
            "episode_index",
            6,
            0.0,
            &["`length` of episode 1", "is 8 in the metadata, but it has 1 rows"],
        ),
        ("episode_index", 15, 9.0, &["`length` of episode 2", "it has 2 rows"]),
        ("episode_index", 0, 7.0, &["`episode_index` of episode 7", "not where the metadata"]),
        ("task_index", 5, 44.0, &["`task_index` of episode 1", "is 44"]),
        ("timestamp", 6, 0.0, &["`timestamp` of episode 1", "does not ascend at frame 1"]),
        ("timestamp", 5, -0.5, &["`timestamp` of episode 1", "is -0.5 at frame 0"]),
        (
            "timestamp",
            12,
            4.0,
            &["`timestamp` of episode 1", "4.000 s over 8 frames", "0.700 s at the 10 fps"],
        ),
    ] {
        let (_folder, dir) = demos(Version::V30);
        set_data(&dir, column, |values| values[row] = value);
        assert_names(&read_error(&dir), parts);
    }
}

#[test]
fn a_feature_of_another_width_than_its_rows_is_named() {
    let (_folder, dir) = demos(Version::V30);
    set_info(&dir, "/features/observation.state/shape", json!([4]));
    assert_names(
        &read_error(&dir),
        &["`observation.state`", "file-000.parquet", "3 values in row 0, not 4"],
    );
    set_info(&dir, "/features/observation.state/dtype", json!("string"));
    assert_names(&read_error(&dir), &["no feature of numbers `observation.state`", "action"]);
}

#[test]
fn wrong_metadata_of_v30_is_named_with_its_column() {
    for (column, values, parts) in [
        ("length", [5.0, 8.5, 3.0], &["`length` of episode 1", "8.5"][..]),
        ("length", [6.0, 8.0, 2.0], &["`dataset_to_index` of episode 0", "`length` 6"]),
        ("data/file_index", [0.0, -1.0, 0.0], &["`data/file_index` of episode 1", "-1"]),
        ("data/file_index", [0.0, 1.0, 0.0], &["file-001.parquet", "is missing"]),
        (
            "videos/observation.images.front/from_timestamp",
            [0.0, f64::NAN, 1.3],
            &["`videos/observation.images.front/from_timestamp` of episode 1", "NaN"],
        ),
    ] {
        let (_folder, dir) = demos(Version::V30);
        set_episodes(&dir, column, values.to_vec());
        assert_names(&open_error(&dir), parts);
    }
}

#[test]
fn a_path_that_leaves_the_folder_is_refused() {
    for (field, path) in [
        ("data_path", "../{chunk_index}/{file_index}.parquet"),
        ("data_path", "/etc/{file_index}"),
        ("video_path", "videos/../../{video_key}/{chunk_index}/{file_index}.mp4"),
        ("video_path", "file:{video_key}/../{file_index}.mp4"),
        ("video_path", "{video_key}/{episode_index}.mp4"),
    ] {
        let (_folder, dir) = demos(Version::V30);
        set_info(&dir, &format!("/{field}"), json!(path));
        assert_names(&open_error(&dir), &[&format!("`{field}`"), "info.json"]);
    }
}

#[cfg(unix)]
#[test]
fn a_link_that_leaves_the_folder_is_refused_and_one_of_the_hubs_cache_is_not() {
    use std::os::unix::fs::symlink;
    let (folder, dir) = demos(Version::V30);
    let outside = folder.path().join("outside.parquet");
    fs::rename(dir.join(DATA), &outside).unwrap();
    symlink(&outside, dir.join(DATA)).unwrap();
    assert_names(&open_error(&dir), &[DATA, "outside of the data set"]);
    // The cache of the hub: `snapshots/REVISION/…` links to `blobs/HASH`.
    let cache = folder.path().join("datasets--a--b");
    fs::create_dir_all(cache.join("snapshots")).unwrap();
    fs::create_dir_all(cache.join("blobs")).unwrap();
    let snapshot = cache.join("snapshots/main");
    fs::rename(&dir, &snapshot).unwrap();
    fs::rename(&outside, cache.join("blobs/c0ffee")).unwrap();
    fs::remove_file(snapshot.join(DATA)).unwrap();
    symlink("../../../../blobs/c0ffee", snapshot.join(DATA)).unwrap();
    assert_eq!(Dataset::open(&snapshot).unwrap().episodes().len(), 3);
}

#[test]
fn too_many_rows_are_refused_by_the_footer() {
    let (_folder, dir) = demos(Version::V30);
    // Run-length encoding makes some kilobytes of them.
    write_table(&dir.join(DATA), vec![("episode_index", Values::Integers(vec![0; 20_000_001]))])
        .unwrap();
    assert_names(&read_error(&dir), &["file-000.parquet", "20000001 rows"]);
}

#[test]
fn a_damaged_parquet_file_is_named() {
    for file in [DATA, EPISODES, "meta/tasks.parquet"] {
        let (_folder, dir) = demos(Version::V30);
        let path = dir.join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = if file == DATA { read_error(&dir) } else { open_error(&dir) };
        assert_names(&error, &[file]);
    }
}

#[test]
fn a_video_shorter_than_its_rows_is_named() {
    let (_folder, dir) = demos(Version::V21);
    let video =
        |episode: usize| dir.join(format!("videos/chunk-000/{CAMERA}/episode_{episode:06}.mp4"));
    fs::copy(video(0), video(1)).unwrap();
    // Even if the frames that are wanted exist.
    let error = frames_error(&dir);
    assert_names(
        &error,
        &["of episode 1", "episode_000001.mp4", "8 rows up to 0.7000 s", "at 0.4000 s"],
    );
    let (_folder, dir) = demos(Version::V30);
    let starts = vec![0.0, 0.9, 1.3];
    set_episodes(&dir, "videos/observation.images.front/from_timestamp", starts);
    assert_names(&frames_error(&dir), &["of episode 1", "file-000.mp4", "up to 1.6000 s"]);
}

#[test]
fn a_frame_beyond_the_tolerance_is_named_and_within_it_is_read() {
    let (_folder, dir) = demos(Version::V30);
    set_episodes(&dir, "videos/observation.images.front/from_timestamp", vec![0.0, 0.51, 1.3]);
    let error = frames_error(&dir);
    assert_names(&error, &["frame 0 at 0.5100 s", "at 0.5000 s", "tolerance of 0.0001 s"]);
    let dataset = Dataset::open(&dir).unwrap().with_tolerance(0.02);
    assert_eq!(dataset.frames(CAMERA, 1, &[0]).unwrap().len(), 1);
}

#[test]
fn a_video_of_another_frame_rate_is_named() {
    let (_folder, dir) = demos(Version::V21);
    encode(&dir, "-s 64x64 -r 20");
    let parts = ["has 20.000 fps", "`fps` of `meta/info.json` is 10"];
    assert_names(&frames_error(&dir), &parts);
}

#[test]
fn a_video_of_another_size_is_read_as_lerobot_reads_it() {
    let (_folder, dir) = demos(Version::V21);
    encode(&dir, "-s 32x64 -r 10");
    let dataset = Dataset::open(&dir).unwrap();
    assert_eq!(dataset.features()[CAMERA].image_size(), Some((64, 64)));
    assert_eq!(dataset.frames(CAMERA, 1, &[0]).unwrap()[0].dimensions(), (32, 64));
}

/// Replaces the video of episode 1 by one that FFmpeg encodes with `arguments`.
fn encode(dir: &Path, arguments: &str) {
    let source = "-v error -y -f lavfi -i testsrc2=r=10 -frames:v 40";
    let status = Command::new("ffmpeg")
        .args(source.split(' '))
        .args(arguments.split(' '))
        .args(["-pix_fmt", "yuv420p"])
        .arg(dir.join(format!("videos/chunk-000/{CAMERA}/episode_000001.mp4")))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_video_that_is_none_is_named() {
    let (_folder, dir) = demos(Version::V21);
    let file = format!("videos/chunk-000/{CAMERA}/episode_000001.mp4");
    for bytes in [&b""[..], b"#EXTM3U\nhttp://example.org/a.ts\n", &[7; 5000]] {
        fs::write(dir.join(&file), bytes).unwrap();
        assert_names(&frames_error(&dir), &[&file]);
    }
}

#[test]
fn other_formats_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("variation0/episodes/episode0/low_dim_obs.pkl");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "cos\nsystem\n").unwrap();
    assert_names(&open_error(folder.path()), &["RLBench", "`LeRobotDataset.create`"]);
}
