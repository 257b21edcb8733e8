//! Finds the images and videos that a record names.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::row::Row;
use super::sample::{MediaFile, Video};
use crate::container::excerpt;
use crate::error::Result;

/// Images and frames of one record: Qwen2.5-VL takes at most 768 frames of a video.
const MAX_FILES: usize = 4096;

/// Frames per second of frames without a rate, as in ms-swift and `qwen-vl-utils`.
const DEFAULT_FPS: f64 = 2.0;

/// The fields of an object that have a video's frames: that of `inspect`'s batches, and Qwen's.
pub(super) const FRAME_FIELDS: [&str; 2] = ["frames", "video"];

/// Images or videos as they are in the file, with their field.
#[derive(Debug, Clone)]
pub(super) struct Source<'a> {
    pub(super) field: String,
    pub(super) value: &'a Value,
}

/// The elements of a list of images or videos; a single one is a list of one.
pub(super) fn sources<'a>(row: &Row<'a>, names: &[&'static str]) -> Result<Vec<Source<'a>>> {
    let Some((name, value)) = row.one_of(names)? else { return Ok(Vec::new()) };
    Ok(match value {
        Value::Array(values) => values
            .iter()
            .enumerate()
            .map(|(index, value)| Source { field: format!("{name}[{index}]"), value })
            .collect(),
        value => vec![Source { field: name.to_owned(), value }],
    })
}

/// Where relative paths are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder<'a> {
    /// `image_dir` of the options.
    pub(super) image_dir: Option<&'a Path>,
    /// The folder of the question file.
    pub(super) beside: &'a Path,
}

/// The images that `sources` name.
///
/// # Errors
/// The first one that is not an image file, by its field.
pub(super) fn images(
    row: &Row<'_>,
    sources: &[Source<'_>],
    folder: Folder<'_>,
) -> Result<Vec<MediaFile>> {
    check_count(row, sources.len(), "images")?;
    sources.iter().map(|source| file(row, &source.field, source.value, folder)).collect()
}

/// The videos that `sources` name.
///
/// # Errors
/// The first one that is neither a file nor a list of frames, by its field.
pub(super) fn videos(
    row: &Row<'_>,
    sources: &[Source<'_>],
    folder: Folder<'_>,
) -> Result<Vec<Video>> {
    check_count(row, sources.len(), "videos")?;
    sources.iter().map(|source| video(row, &source.field, source.value, folder)).collect()
}

fn check_count(row: &Row<'_>, count: usize, what: &str) -> Result<()> {
    match count > MAX_FILES {
        true => Err(row.error(format!("has {count} {what}, more than {MAX_FILES}"))),
        false => Ok(()),
    }
}

fn video(row: &Row<'_>, field: &str, value: &Value, folder: Folder<'_>) -> Result<Video> {
    let frames = |field: &str, values: &[Value], fps| {
        if values.is_empty() {
            return Err(row.record.field_error(field, "is a video without frames"));
        }
        check_count(row, values.len(), "frames in a video")?;
        let frame = |(index, value)| file(row, &format!("{field}[{index}]"), value, folder);
        let frames = values.iter().enumerate().map(frame).collect::<Result<_>>()?;
        Ok(Video::Frames { frames, fps: Some(fps) })
    };
    let fields = match value {
        Value::Array(values) => return frames(field, values, DEFAULT_FPS),
        Value::Object(fields) => fields,
        value => return file(row, field, value, folder).map(Video::File),
    };
    let is_there = |&name: &&str| fields.get(name).is_some_and(|value| !value.is_null());
    let Some(name) = FRAME_FIELDS.into_iter().find(|name| is_there(name)) else {
        return file(row, field, value, folder).map(Video::File);
    };
    let inner = format!("{field}.{name}");
    match &fields[name] {
        Value::Array(values) => frames(&inner, values, fps(row, field, fields.get("fps"))?),
        value => file(row, &inner, value, folder).map(Video::File),
    }
}

fn fps(row: &Row<'_>, field: &str, value: Option<&Value>) -> Result<f64> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(DEFAULT_FPS) };
    match value.as_f64() {
        Some(fps) if fps.is_finite() && fps > 0.0 => Ok(fps),
        _ => Err(row.record.field_error(&format!("{field}.fps"), "must be a number above 0")),
    }
}

/// An image or a video file: a path, a data URI, binary, or an object with `bytes` or `path`.
fn file(row: &Row<'_>, field: &str, value: &Value, folder: Folder<'_>) -> Result<MediaFile> {
    let from_bytes = |bytes: Arc<[u8]>, name: Option<&str>, place: &str| match bytes.is_empty() {
        true => Err(row.record.field_error(place, "is empty")),
        false => Ok(MediaFile::Bytes { bytes, name: name.unwrap_or(field).to_owned() }),
    };
    if let Some(bytes) = row.bytes.get(field) {
        return from_bytes(bytes.clone(), None, field);
    }
    let fields = match value {
        Value::String(text) => return named(row, field, text, folder),
        Value::Object(fields) => fields,
        _ => {
            let expected = "a path, or an object with `bytes` or `path`";
            return Err(row.type_error(field, expected, value));
        }
    };
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(value) => Err(row.type_error(&format!("{field}.{name}"), "a path", value)),
    };
    let path = text("path")?.filter(|path| !path.is_empty());
    let (bytes_field, image_field) = (format!("{field}.bytes"), format!("{field}.image"));
    if let Some(bytes) = row.bytes.get(&bytes_field) {
        return from_bytes(bytes.clone(), path, &bytes_field);
    }
    if let Some(value) = fields.get("bytes").filter(|value| !value.is_null()) {
        return Err(row.type_error(
            &bytes_field,
            "binary, as in parquet, or in a data URI in place of the path",
            value,
        ));
    }
    match (path, text("image")?) {
        (Some(path), _) => named(row, &format!("{field}.path"), path, folder),
        (None, Some(path)) => named(row, &image_field, path, folder),
        (None, None) => Err(row.record.field_error(field, "has neither `bytes` nor `path`")),
    }
}

/// The file that a path or URI names.
fn named(row: &Row<'_>, field: &str, text: &str, folder: Folder<'_>) -> Result<MediaFile> {
    let fault = |reason: String| Err(row.record.field_error(field, reason));
    if let Some(uri) = text.strip_prefix("data:") {
        let Some((_, code)) = uri.split_once(";base64,") else {
            return fault("is a data URI without `;base64,`".to_owned());
        };
        return match BASE64.decode(code.trim()) {
            Ok(bytes) if bytes.is_empty() => fault("is empty".to_owned()),
            Ok(bytes) => Ok(MediaFile::Bytes { bytes: bytes.into(), name: field.to_owned() }),
            Err(error) => fault(format!("is not base64: {error}")),
        };
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return fault(format!(
            "`{}` is a URL, and nothing is downloaded; give a path",
            excerpt(text)
        ));
    }
    let text = text.strip_prefix("file://").unwrap_or(text);
    if text.is_empty() {
        return fault("is empty".to_owned());
    }
    let path = folder.image_dir.unwrap_or(folder.beside).join(text);
    match existing(&path) {
        Ok(()) => Ok(MediaFile::Path(path)),
        Err(reason) => {
            let relative = Path::new(text).is_relative() && reason == MISSING;
            let place = match (relative, folder.image_dir) {
                (false, _) => String::new(),
                (true, Some(_)) => format!(" in `{}`", parent(&path)),
                (true, None) => format!(
                    " in `{}`; pass the folder of its files with `--image-dir`",
                    parent(&path)
                ),
            };
            fault(format!("`{}` {reason}{place}", excerpt(text)))
        }
    }
}

fn parent(path: &Path) -> String {
    path.parent().map(Path::display).map(|path| path.to_string()).unwrap_or_default()
}

const MISSING: &str = "does not exist";

/// Checks that `path` is a file.
fn existing(path: &Path) -> std::result::Result<(), String> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("contains a NUL character".to_owned());
    }
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) if found.is_dir() => Err("is a directory".to_owned()),
        Ok(_) => Err("is not a regular file".to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(MISSING.to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}
