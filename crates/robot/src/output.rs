//! The files of questions: a directory that is complete or absent.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use embodied_r_data::parquet::{Column, write_table};
use embodied_r_data::{Progress, Question};
use embodied_r_files::{Error as FileError, Staging, write_atomic_with, write_json, write_lines};
use embodied_r_lerobot::{Dataset, Feature, FrameId};
use image::RgbImage;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::demonstration::Demonstration;
use crate::error::{Error, Result};
use crate::key_points::KeyPoint;
use crate::prepared::{Prepared, Settings};
use crate::questions::RobotQuestion;
use crate::records::{Worked, image_path};
use crate::split::Split;

/// The settings, and what came of them.
const SETTINGS: &str = "settings.json";
/// One line per episode.
const EPISODES: &str = "episodes.jsonl";

/// Checks that `out` can become the output: it is absent or an empty directory.
///
/// # Errors
/// [`Error::NotEmpty`], or it cannot be read.
pub fn check_output(out: &Path) -> Result<()> {
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::NotEmpty { path: out.into() }),
        },
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(fault) => Err(FileError::io("read", out)(fault).into()),
    }
}

/// Writes the questions about `dataset` into the directory `out`:
///
/// - `train.json`, `val.json`, `test.json` and, with held-out tasks, `held_out.json`: this project's question files;
/// - the same as `.parquet` with the columns `problem`, `answer` and `images` of EasyR1;
/// - `sft_direct.json` and `sft_reasoned.json`: worked examples of the training questions;
/// - `images/`, a PNG file per frame; `episodes.jsonl`, splits and key points; `settings.json`.
///
/// A split without questions has no files. `name` is what the user calls the data set. All is written to a hidden
/// directory beside `out`, which is renamed at the end; `more` may write further files into it.
///
/// # Errors
/// [`Error::NotEmpty`], [`Error::InUse`], a frame cannot be decoded, a file cannot be written, or those of `more`; nothing
/// is left behind.
pub fn write(
    prepared: &Prepared,
    dataset: &Dataset,
    settings: &Settings,
    name: &str,
    out: &Path,
    progress: &dyn Progress,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    check_output(out)?;
    let staging = Staging::beside(out)?.ok_or_else(|| Error::InUse { path: out.into() })?;
    let folder = staging.folder();
    more(&folder)?;
    write_images(prepared, dataset, &folder, progress)?;
    write_files(prepared, settings, name, &folder)?;
    Ok(staging.publish()?)
}

/// Decodes and writes the frames that questions are about.
fn write_images(
    prepared: &Prepared,
    dataset: &Dataset,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let episode = |source: usize| prepared.demonstrations[source].episode;
    let frames: Vec<FrameId> = prepared
        .frames()
        .into_iter()
        .map(|(source, frame)| FrameId { episode: episode(source), frame })
        .collect();
    let camera = &prepared.columns.camera;
    let stated = dataset.features().get(camera).and_then(Feature::image_size);
    let other_size = OnceLock::new();
    progress.start("decoding frames", Some(frames.len() as u64));
    dataset.for_each_frame(camera, &frames, |index, image| -> Result<()> {
        let FrameId { episode, frame } = frames[index];
        if stated.is_some_and(|stated| stated != image.dimensions()) {
            other_size.get_or_init(|| image.dimensions());
        }
        write_png(&folder.join(image_path(episode, frame)), &image)?;
        progress.advance(1);
        Ok(())
    })?;
    progress.finish();
    if let (Some((width, height)), Some(found)) = (stated, other_size.get()) {
        progress.warn(&format!(
            "images of `{camera}` are {} × {} pixels, but {width} × {height} by `shape` in `meta/info.json`; they are used as \
             they are",
            found.0, found.1
        ));
    }
    Ok(())
}

fn write_png(path: &Path, image: &RgbImage) -> Result<()> {
    Ok(write_atomic_with(path, |out| {
        PngEncoder::new_with_quality(out, CompressionType::Fast, FilterType::Adaptive)
            .write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8)
            .map_err(|fault| FileError::io("write", path)(std::io::Error::other(fault)))
    })?)
}

/// Writes all but the images, the question files last.
fn write_files(prepared: &Prepared, settings: &Settings, name: &str, folder: &Path) -> Result<()> {
    let records = settings.records();
    let of_split = |split: Split| {
        let questions = prepared.questions.questions.iter().filter(move |it| it.split == split);
        questions.map(|it| (it, &prepared.demonstrations[it.start.source]))
    };
    write_lines(&folder.join(EPISODES), episodes(prepared))?;
    write_json(&folder.join(SETTINGS), &summary(prepared, settings, name))?;
    for (file, worked) in
        [("sft_direct.json", Worked::Direct), ("sft_reasoned.json", Worked::Reasoned)]
    {
        let conversations: Vec<Value> = of_split(Split::Train)
            .map(|(question, demonstration)| records.conversation(question, demonstration, worked))
            .collect();
        if !conversations.is_empty() {
            write_json(&folder.join(file), &conversations)?;
        }
    }
    for split in Split::ALL {
        let questions: Vec<(&RobotQuestion, &Demonstration)> = of_split(split).collect();
        if questions.is_empty() {
            continue;
        }
        let answers = questions.iter().map(|(it, _)| records.answer_as_asked(it)).collect();
        let written: Vec<Question> = questions
            .iter()
            .map(|(it, demonstration)| records.question(it, demonstration))
            .collect();
        let images = questions.iter().map(|(it, demonstration)| {
            Some(vec![image_path(demonstration.episode, it.start.frame)])
        });
        let problems = written.iter().map(|record| record.question.clone()).collect();
        let table = vec![
            ("problem", Column::Strings(problems)),
            ("answer", Column::Strings(answers)),
            ("images", Column::OptionalStringLists(images.collect())),
        ];
        write_table(&folder.join(format!("{}.parquet", split.name())), table)?;
        write_json(&folder.join(format!("{}.json", split.name())), &written)?;
    }
    Ok(())
}

/// A line of `episodes.jsonl`.
#[derive(Serialize)]
struct EpisodeLine<'a> {
    episode_index: usize,
    /// That of the first frame.
    task: &'a str,
    /// The frames from which on others hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    later_tasks: Vec<LaterTask<'a>>,
    split: Split,
    frames: usize,
    key_points: &'a [KeyPoint],
}

/// A task that holds from a frame on.
#[derive(Serialize)]
struct LaterTask<'a> {
    frame_index: usize,
    task: &'a str,
}

fn episodes(prepared: &Prepared) -> impl Iterator<Item = EpisodeLine<'_>> {
    let rows = prepared.demonstrations.iter().zip(&prepared.splits).zip(&prepared.key_points);
    rows.map(|((demonstration, split), key_points)| EpisodeLine {
        episode_index: demonstration.episode,
        task: demonstration.task(0),
        later_tasks: demonstration
            .tasks
            .iter()
            .skip(1)
            .map(|span| LaterTask { frame_index: span.start, task: &span.task })
            .collect(),
        split: *split,
        frames: demonstration.frames(),
        key_points,
    })
}

/// The settings, and the numbers of episodes and questions.
fn summary(prepared: &Prepared, settings: &Settings, name: &str) -> Value {
    let mut questions: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for ((split, kind), count) in &prepared.questions.counts {
        let of_split = questions.entry(split.name()).or_default();
        of_split.insert(kind.name().to_owned(), json!(count));
    }
    let episodes: Map<String, Value> = prepared
        .episodes()
        .into_iter()
        .map(|(task, splits)| {
            let splits = splits.into_iter().map(|(split, n)| (split.name().to_owned(), json!(n)));
            (task.to_owned(), Value::Object(splits.collect()))
        })
        .collect();
    json!({
        "demonstrations": name,
        "fps": prepared.fps,
        "columns": prepared.columns,
        "key_points": prepared.rule,
        "split": settings.shares,
        "held_out_tasks": settings.held_out_tasks,
        "options": settings.questions,
        "prompt": settings.style,
        "decimals": settings.decimals,
        "robot": settings.robot,
        "episodes": episodes,
        "questions": questions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_absent_or_empty() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("q");
        check_output(&out).unwrap();
        fs::create_dir(&out).unwrap();
        check_output(&out).unwrap();
        fs::write(out.join("train.json"), "[]").unwrap();
        assert!(matches!(check_output(&out), Err(Error::NotEmpty { .. })));
    }
}
