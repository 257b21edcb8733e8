//! The metadata of v3.0: `meta/episodes/*/*.parquet` and `meta/tasks.parquet`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use embodied_r_data::parquet::{ColumnFile, Table};

use super::jsonl::videos;
use super::{Entry, Found, VideoSpan, add_task};
use crate::episode::EpisodeInfo;
use crate::error::{Error, Result};
use crate::info::Info;
use crate::json::MAX_LINES;
use crate::root::Root;
use crate::template::FileIndex;

/// The columns that can have the tasks' texts: pandas names an index without a name so, newer versions of LeRobot name it.
const TEXTS: [&str; 2] = ["task", "__index_level_0__"];

pub(super) fn tasks(path: &Path) -> Result<BTreeMap<i64, String>> {
    let file = ColumnFile::open(path)?;
    let text = TEXTS.into_iter().find(|name| file.has(name)).unwrap_or(TEXTS[0]);
    let table = file.read(&["task_index", text], 0..file.len())?;
    let mut tasks = BTreeMap::new();
    for (index, text) in table.integers("task_index")?.into_iter().zip(table.strings(text)?) {
        add_task(&mut tasks, path, index, text)?;
    }
    Ok(tasks)
}

pub(super) fn episodes(root: &Root, info: &Info) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for relative in files(root)? {
        let path = root.file(&relative, || "although its folder has it".to_owned())?;
        read(&path, info, &mut found)?;
    }
    Ok(found)
}

/// The files of episodes, as LeRobot finds them.
fn files(root: &Root) -> Result<Vec<String>> {
    const FOLDER: &str = "meta/episodes";
    let read = |relative: &str| -> Result<Vec<String>> {
        let path = root.path(relative);
        let failed = |error| Error::Io(embodied_r_files::Error::io("read", &path)(error));
        let entries = fs::read_dir(&path).map_err(failed)?;
        let names = entries.map(|entry| Ok(entry.map_err(failed)?.file_name().into_string().ok()));
        Ok(names.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    let missing = || {
        let reason = "which v3.0 has for its episodes".to_owned();
        Error::Missing { path: root.path(&format!("{FOLDER}/chunk-000/file-000.parquet")), reason }
    };
    if !root.path(FOLDER).is_dir() {
        return Err(missing());
    }
    let mut files = Vec::new();
    for chunk in read(FOLDER)? {
        let chunk = format!("{FOLDER}/{chunk}");
        if root.path(&chunk).is_dir() {
            let names = read(&chunk)?.into_iter().filter(|name| name.ends_with(".parquet"));
            files.extend(names.map(|name| format!("{chunk}/{name}")));
        }
    }
    files.sort();
    if files.is_empty() { Err(missing()) } else { Ok(files) }
}

fn read(path: &Path, info: &Info, found: &mut Vec<Found>) -> Result<()> {
    let file = ColumnFile::open(path)?;
    let cameras = videos(info);
    let video = |key: &str, field: &str| format!("videos/{key}/{field}");
    let mut columns: Vec<String> =
        ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
            .map(str::to_owned)
            .into();
    for key in &cameras {
        columns.extend(["chunk_index", "file_index", "from_timestamp"].map(|it| video(key, it)));
    }
    let bounds = ["dataset_from_index", "dataset_to_index"];
    let has_bounds = bounds.iter().all(|column| file.has(column));
    columns.extend(bounds.iter().filter(|_| has_bounds).map(|&column| column.to_owned()));
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let table = file.read(&columns, 0..file.len())?;

    if found.len() + file.len() > MAX_LINES {
        let reason = format!("has more than {MAX_LINES} rows with those of other files");
        return Err(Error::field(path, "episode_index", reason));
    }
    let indices = whole(&table, path, "episode_index", None)?;
    let whole = |column: &str| whole(&table, path, column, Some(&indices));
    let lengths = whole("length")?;
    let tasks = table.optional_string_lists("tasks")?;
    let data = places(whole("data/chunk_index")?, whole("data/file_index")?);
    let mut spans = BTreeMap::new();
    for key in cameras {
        let files = places(whole(&video(key, "chunk_index"))?, whole(&video(key, "file_index"))?);
        let column = video(key, "from_timestamp");
        let starts = table.number_rows(&column, 1)?;
        if let Some(row) = starts.iter().position(|start| !start.is_finite() || *start < 0.0) {
            let (episode, start) = (indices[row] as usize, starts[row]);
            let reason = format!("is {start}, not a time in seconds");
            return Err(Error::episode(path, episode, column, reason));
        }
        spans.insert(key, (files, starts));
    }
    if has_bounds {
        let (from, to) = (whole(bounds[0])?, whole(bounds[1])?);
        for (row, &length) in lengths.iter().enumerate() {
            if to[row].checked_sub(from[row]) != Some(length) {
                let reason = format!(
                    "is {}, which is not `dataset_from_index` {} and `length` {length} together",
                    to[row], from[row]
                );
                return Err(Error::episode(path, indices[row] as usize, bounds[1], reason));
            }
        }
    }
    for (row, tasks) in tasks.into_iter().enumerate() {
        let videos = spans.iter().map(|(key, (files, starts))| {
            ((*key).clone(), VideoSpan { file: files[row], from_s: starts[row] })
        });
        let info = EpisodeInfo {
            index: indices[row] as usize,
            length: lengths[row] as usize,
            tasks: tasks.unwrap_or_default(),
        };
        let entry = Entry { info, data: data[row], videos: videos.collect() };
        found.push((entry, PathBuf::from(path)));
    }
    Ok(())
}

/// A column of whole numbers, not negative; `episodes` are the episodes of the rows.
fn whole(table: &Table, path: &Path, column: &str, episodes: Option<&[u64]>) -> Result<Vec<u64>> {
    const MAX_EXACT: f64 = 9e15;
    let numbers = table.number_rows(column, 1)?.into_iter().enumerate();
    let whole = numbers.map(|(row, number)| {
        if (0.0..MAX_EXACT).contains(&number) && number.fract() == 0.0 {
            return Ok(number as u64);
        }
        let episode =
            episodes.and_then(|episodes| episodes.get(row)).map_or(row, |&it| it as usize);
        Err(Error::episode(path, episode, column, format!("is {number}, not a whole number")))
    });
    whole.collect()
}

fn places(chunks: Vec<u64>, files: Vec<u64>) -> Vec<FileIndex> {
    chunks.into_iter().zip(files).map(|(chunk, file)| FileIndex { chunk, file }).collect()
}
