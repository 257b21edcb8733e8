//! The metadata of v2.1: `meta/episodes.jsonl` and `meta/tasks.jsonl`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Entry, Found, VideoSpan, add_task};
use crate::episode::EpisodeInfo;
use crate::error::{Error, Result};
use crate::info::{Feature, Info};
use crate::json;
use crate::template::FileIndex;

pub(super) fn tasks(path: &Path) -> Result<BTreeMap<i64, String>> {
    let mut tasks = BTreeMap::new();
    json::for_each_line(path, |line, fields| {
        let index = number(path, line, fields, "task_index")?;
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        let text = fields.get("task").and_then(Value::as_str);
        let text = text.ok_or_else(|| wrong(path, line, "task", "is missing or not a text"))?;
        add_task(&mut tasks, path, index, text.to_owned())
    })?;
    Ok(tasks)
}

pub(super) fn episodes(path: &Path, info: &Info) -> Result<Vec<Found>> {
    let cameras: Vec<&String> = videos(info);
    let mut entries = Vec::new();
    json::for_each_line(path, |line, fields| {
        let index = number(path, line, fields, "episode_index")?;
        let length = number(path, line, fields, "length")?;
        let tasks = match fields.get("tasks") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => texts
                .iter()
                .map(|text| text.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| wrong(path, line, "tasks", "has a value that is not a text"))?,
            Some(_) => return Err(wrong(path, line, "tasks", "is not a list of texts")),
        };
        let file = FileIndex { chunk: index as u64 / info.chunks_size, file: index as u64 };
        let span = VideoSpan { file, from_s: 0.0 };
        let videos = cameras.iter().map(|&key| (key.clone(), span)).collect();
        let info = EpisodeInfo { index, length, tasks };
        entries.push((Entry { info, data: file, videos }, path.to_owned()));
        Ok(())
    })?;
    Ok(entries)
}

/// The cameras that are videos.
pub(super) fn videos(info: &Info) -> Vec<&String> {
    let is_video = |(_, feature): &(&String, &Feature)| feature.is_video();
    info.features().iter().filter(is_video).map(|(key, _)| key).collect()
}

fn number(path: &Path, line: usize, fields: &Map<String, Value>, field: &str) -> Result<usize> {
    json::index(fields.get(field)).map_err(|reason| wrong(path, line, field, reason))
}

fn wrong(path: &Path, line: usize, field: &str, reason: impl Into<String>) -> Error {
    Error::Line { path: path.into(), line, field: field.to_owned(), reason: reason.into() }
}
