//! The metadata of a data set: `info.json`, tasks, episodes and statistics.

use std::path::Path;

use embodied_r_data::parquet::{Column as Values, write_table, write_table_with_metadata};
use embodied_r_files::{write_json, write_lines};
use serde_json::{Map, Value, json};

use super::options::{INDEX_COLUMNS, WriterOptions};
use super::stats::{EpisodeStats, Kind, QUANTILES, Stats};
use super::table::{CHUNKS_SIZE, DATA_FILE_MB, Episode};
use super::videos::{Span, VIDEO_FILE_MB};
use crate::error::Result;
use crate::template::FileIndex;
use crate::version::Version;

/// Episodes of a file of `meta/episodes`: some kilobytes each.
const EPISODES_PER_FILE: usize = 10_000;

/// An episode that was written.
#[derive(Debug)]
pub(super) struct EpisodeRecord {
    pub(super) place: Episode,
    pub(super) task: String,
    pub(super) data: FileIndex,
    pub(super) video: Span,
    pub(super) stats: EpisodeStats,
}

/// Writes `meta/info.json`.
pub(super) fn write_info(
    folder: &Path,
    options: &WriterOptions,
    episodes: &[EpisodeRecord],
    tasks: &[String],
) -> Result<()> {
    let frames: usize = episodes.iter().map(|episode| episode.place.length).sum();
    let mut info = Map::new();
    let mut put = |key: &str, value: Value| info.insert(key.to_owned(), value);
    put("codebase_version", options.version.name().into());
    put("robot_type", options.robot_type.as_str().into());
    put("total_episodes", episodes.len().into());
    put("total_frames", frames.into());
    put("total_tasks", tasks.len().into());
    let (data_path, video_path) = match options.version {
        Version::V21 => {
            put("total_videos", episodes.len().into());
            put("total_chunks", (episodes.len() as u64).div_ceil(CHUNKS_SIZE).into());
            put("chunks_size", CHUNKS_SIZE.into());
            (
                "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
                "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
            )
        }
        Version::V30 => {
            put("chunks_size", CHUNKS_SIZE.into());
            put("data_files_size_in_mb", DATA_FILE_MB.into());
            put("video_files_size_in_mb", VIDEO_FILE_MB.into());
            (
                "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
                "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            )
        }
    };
    put("fps", options.fps.into());
    put("splits", json!({ "train": format!("0:{}", episodes.len()) }));
    put("data_path", data_path.into());
    put("video_path", video_path.into());
    put("features", features(options));
    Ok(write_json(&folder.join("meta/info.json"), &info)?)
}

fn features(options: &WriterOptions) -> Value {
    let mut features = Map::new();
    for feature in &options.features {
        let (names, width) = (&feature.names, feature.names.len());
        let value = json!({ "dtype": "float32", "shape": [width], "names": names });
        features.insert(feature.key.clone(), value);
    }
    let camera = &options.camera;
    let video = json!({
        "dtype": "video",
        "shape": [camera.height, camera.width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": camera.height,
            "video.width": camera.width,
            "video.codec": options.codec.name(),
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": false,
            "video.fps": options.fps,
            "video.channels": 3,
            "has_audio": false,
        },
    });
    features.insert(camera.key.clone(), video);
    for name in INDEX_COLUMNS {
        let dtype = if name == "timestamp" { "float32" } else { "int64" };
        let value = json!({ "dtype": dtype, "shape": [1], "names": null });
        features.insert(name.to_owned(), value);
    }
    Value::Object(features)
}

/// Writes the tasks, episodes and statistics of v2.1.
pub(super) fn write_v21(folder: &Path, episodes: &[EpisodeRecord], tasks: &[String]) -> Result<()> {
    let tasks = tasks.iter().enumerate();
    let tasks = tasks.map(|(index, task)| json!({ "task_index": index, "task": task }));
    write_lines(&folder.join("meta/tasks.jsonl"), tasks)?;
    let lines = episodes.iter().map(|episode| {
        let Episode { index, length, .. } = episode.place;
        json!({ "episode_index": index, "tasks": [episode.task], "length": length })
    });
    write_lines(&folder.join("meta/episodes.jsonl"), lines)?;
    let lines = episodes.iter().map(|episode| {
        let stats = stats_json(&episode.stats, Version::V21);
        json!({ "episode_index": episode.place.index, "stats": stats })
    });
    Ok(write_lines(&folder.join("meta/episodes_stats.jsonl"), lines)?)
}

/// Writes the tasks, episodes and statistics of v3.0.
pub(super) fn write_v30(
    folder: &Path,
    options: &WriterOptions,
    episodes: &[EpisodeRecord],
    tasks: &[String],
) -> Result<()> {
    let columns = vec![
        ("task_index", Values::Integers((0..tasks.len() as i64).collect())),
        ("task", Values::Strings(tasks.to_vec())),
    ];
    let path = folder.join("meta/tasks.parquet");
    write_table_with_metadata(&path, columns, ("pandas", &pandas_index()))?;
    let camera = &options.camera.key;
    for (file, episodes) in episodes.chunks(EPISODES_PER_FILE).enumerate() {
        let path = folder.join(format!("meta/episodes/chunk-000/file-{file:03}.parquet"));
        let columns = episode_columns(camera, file, episodes);
        let columns = columns.iter().map(|(name, values)| (name.as_str(), values.clone()));
        write_table(&path, columns.collect())?;
    }
    let mut all = EpisodeStats::new();
    for key in episodes.first().map(|first| first.stats.keys()).into_iter().flatten() {
        let of_key: Vec<&Stats> = episodes.iter().filter_map(|it| it.stats.get(key)).collect();
        all.extend(Stats::aggregate(&of_key).map(|stats| (key.clone(), stats)));
    }
    Ok(write_json(&folder.join("meta/stats.json"), &stats_json(&all, Version::V30))?)
}

fn episode_columns(camera: &str, file: usize, episodes: &[EpisodeRecord]) -> Vec<(String, Values)> {
    let integers = |of: &dyn Fn(&EpisodeRecord) -> usize| {
        Values::Integers(episodes.iter().map(|episode| of(episode) as i64).collect())
    };
    let seconds =
        |of: &dyn Fn(&EpisodeRecord) -> f64| Values::Floats(episodes.iter().map(of).collect());
    let video = |field: &str| format!("videos/{camera}/{field}");
    let tasks = episodes.iter().map(|episode| Some(vec![episode.task.clone()])).collect();
    let mut columns = vec![
        ("episode_index".to_owned(), integers(&|it| it.place.index)),
        ("tasks".to_owned(), Values::OptionalStringLists(tasks)),
        ("length".to_owned(), integers(&|it| it.place.length)),
        ("data/chunk_index".to_owned(), integers(&|it| it.data.chunk as usize)),
        ("data/file_index".to_owned(), integers(&|it| it.data.file as usize)),
        ("dataset_from_index".to_owned(), integers(&|it| it.place.first_row)),
        ("dataset_to_index".to_owned(), integers(&|it| it.place.first_row + it.place.length)),
        (video("chunk_index"), integers(&|it| it.video.file.chunk as usize)),
        (video("file_index"), integers(&|it| it.video.file.file as usize)),
        (video("from_timestamp"), seconds(&|it| it.video.from_s)),
        (video("to_timestamp"), seconds(&|it| it.video.to_s)),
    ];
    for key in episodes.first().map(|first| first.stats.keys()).into_iter().flatten() {
        let of_key: Vec<&Stats> = episodes.iter().filter_map(|it| it.stats.get(key)).collect();
        let fields = of_key.first().map(|stats| stats_fields(stats)).unwrap_or_default();
        for (at, (field, _, _)) in fields.iter().enumerate() {
            let values = of_key.iter().map(|stats| stats_fields(stats).swap_remove(at));
            columns.push((format!("stats/{key}/{field}"), stats_column(values.collect())));
        }
    }
    columns.push(("meta/episodes/chunk_index".to_owned(), integers(&|_| 0)));
    columns.push(("meta/episodes/file_index".to_owned(), integers(&|_| file)));
    columns
}

/// A statistic of a feature: its name, what its values are, and its values.
type Field = (&'static str, Kind, Vec<f64>);

fn stats_fields(stats: &Stats) -> Vec<Field> {
    let moments = if stats.kind == Kind::Channels { Kind::Channels } else { Kind::Floats };
    let mut fields = vec![
        ("min", stats.kind, stats.min.clone()),
        ("max", stats.kind, stats.max.clone()),
        ("mean", moments, stats.mean.clone()),
        ("std", moments, stats.std.clone()),
        ("count", Kind::Integers, vec![stats.count as f64]),
    ];
    let quantiles = QUANTILES.iter().zip(&stats.quantiles);
    fields.extend(quantiles.map(|((name, _), values)| (*name, moments, values.clone())));
    fields
}

/// A statistic of all episodes as a column.
fn stats_column(fields: Vec<Field>) -> Values {
    let kind = fields.first().map_or(Kind::Floats, |(_, kind, _)| *kind);
    let rows = fields.into_iter().map(|(_, _, values)| values);
    match kind {
        Kind::Floats => Values::FloatLists(rows.collect()),
        Kind::Channels => Values::NestedFloatLists { rows: rows.collect(), depth: 2 },
        Kind::Integers => Values::IntegerLists(
            rows.map(|row| row.into_iter().map(|value| value as i64).collect()).collect(),
        ),
    }
}

fn stats_json(stats: &EpisodeStats, version: Version) -> Value {
    let feature = |(key, stats): (&String, &Stats)| {
        let fields = stats_fields(stats).into_iter();
        // v2.1 has no quantiles.
        let fields = fields.filter(|(name, ..)| version == Version::V30 || !name.starts_with('q'));
        let fields = fields.map(|(name, kind, values)| {
            let values = values.into_iter().map(|value| match kind {
                Kind::Floats => json!(value),
                Kind::Integers => json!(value as i64),
                Kind::Channels => json!([[value]]),
            });
            (name.to_owned(), Value::Array(values.collect()))
        });
        (key.clone(), Value::Object(fields.collect()))
    };
    Value::Object(stats.iter().map(feature).collect())
}

/// pandas' description of a table whose index is the column `task`.
fn pandas_index() -> String {
    let column = |name: &str, pandas: &str, numpy: &str| {
        json!({
            "name": name, "field_name": name, "pandas_type": pandas, "numpy_type": numpy, "metadata": null,
        })
    };
    json!({
        "index_columns": ["task"],
        "column_indexes": [{
            "name": null, "field_name": null, "pandas_type": "unicode", "numpy_type": "object",
            "metadata": { "encoding": "UTF-8" },
        }],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": { "library": "pyarrow", "version": "21.0.0" },
        "pandas_version": "2.3.0",
    })
    .to_string()
}
