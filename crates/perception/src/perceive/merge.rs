//! Putting the outputs of shards together.

use std::path::{Path, PathBuf};

use embodied_r_data::{Progress, Question};
use serde_json::{Map, Value};

use super::input::{self, Input};
use super::log::{CaptionLog, Expected, Outcome, difference};
use super::shard::{Shard, Shares};
use super::{Changed, file_name};
use crate::error::{Error, Result};

/// So many questions are named where captions are missing.
const NAMED: usize = 5;

/// What is put together.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// The data files that all shards were given.
    pub data_paths: Vec<PathBuf>,
    /// File of EgoSchema's answers; `None` looks beside its questions.
    pub answers: Option<PathBuf>,
    /// Folder of the outputs.
    pub save_path: PathBuf,
    /// Folders of the shards, `shard-1-of-8` and so on; none looks into the folder of the outputs.
    pub shards: Vec<PathBuf>,
}

/// What became of one data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The prompts.
    pub output: PathBuf,
    /// The log of captions.
    pub log: PathBuf,
    /// Questions in the data file.
    pub questions: usize,
    /// Those that have captions.
    pub finished: usize,
    /// Those that failed in their shard.
    pub failed: usize,
}

/// One shard's logs, in the order of the data files.
struct Part {
    shard: Shard,
    folder: PathBuf,
    logs: Vec<CaptionLog>,
}

/// Writes the outputs that one run without shards would have written.
///
/// # Errors
/// A shard or a question is missing, is there twice, was made with other settings, or is still being
/// worked on; files that cannot be read or written. Nothing is written then.
pub fn merge(options: &MergeOptions, progress: &dyn Progress) -> Result<Vec<Merged>> {
    let inputs = input::read(&options.data_paths, options.answers.as_deref(), &options.save_path)?;
    let folders = match options.shards.is_empty() {
        true => beside(&options.save_path)?,
        false => options.shards.clone(),
    };
    let parts = check_shards(&folders, &options.save_path)?;
    let parts = parts.into_iter().map(|(shard, folder)| open(shard, folder, &inputs, progress));
    let parts: Vec<Part> = parts.collect::<Result<_>>()?;
    let settings = common_settings(&parts, &inputs)?;
    let shares = Shares::new(inputs.iter().flat_map(|input| input.questions.iter()), parts.len());
    let chosen: Vec<Vec<Found<'_>>> = (inputs.iter().enumerate())
        .map(|(file, input)| choose(file, input, &parts, &shares))
        .collect::<Result<_>>()?;
    let none = Map::new();
    let settings = settings.unwrap_or(&none);
    let expected = Expected::These(settings, Changed::Refuse);
    let opened = inputs.iter().map(|input| CaptionLog::open(&input.log, expected, progress));
    let logs: Vec<CaptionLog> = opened.collect::<Result<_>>()?;
    let files = inputs.iter().zip(logs).zip(chosen);
    files.map(|((input, log), chosen)| write(input, log, &chosen, settings)).collect()
}

/// A question and what its shard says of it.
type Found<'a> = (&'a Question, &'a Outcome);

/// The folders of shards in `save_path`.
fn beside(save_path: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(save_path).map_err(Error::io("read", save_path))?;
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io("read", save_path))?.path()));
    let mut folders: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    folders.retain(|folder| Shard::of_folder(folder).is_some());
    Ok(folders)
}

/// The shards in their order, each of them once.
fn check_shards(folders: &[PathBuf], save_path: &Path) -> Result<Vec<(Shard, PathBuf)>> {
    let mut parts: Vec<(Shard, PathBuf)> = Vec::new();
    for folder in folders {
        let Some(shard) = Shard::of_folder(folder) else {
            return Err(Error::NoShard { folder: folder.clone() });
        };
        let twice =
            |(other, _): &&(Shard, PathBuf)| *other == shard || other.count() != shard.count();
        if let Some((_, other)) = parts.iter().find(twice) {
            let (first, second) = (other.clone(), folder.clone());
            return Err(Error::ShardsOverlap { first, second });
        }
        parts.push((shard, folder.clone()));
    }
    parts.sort();
    let count = parts.first().map_or(1, |(shard, _)| shard.count());
    let there = |index| parts.iter().any(|(shard, _)| shard.index() == index);
    match (1..=count).find(|&index| !there(index)).and_then(|index| Shard::new(index, count)) {
        Some(missing) => Err(Error::ShardMissing { folder: missing.folder(save_path) }),
        None => Ok(parts),
    }
}

fn open(shard: Shard, folder: PathBuf, inputs: &[Input], progress: &dyn Progress) -> Result<Part> {
    let log = |input: &Input| {
        let path = folder.join(file_name(&input.log));
        if !path.is_file() {
            return Err(Error::ShardMissing { folder: path });
        }
        CaptionLog::open(&path, Expected::AnyOne, progress)
    };
    let logs = inputs.iter().map(log).collect::<Result<_>>()?;
    Ok(Part { shard, folder, logs })
}

/// The settings that all captions were made with; `None` where there are no captions.
fn common_settings<'a>(
    parts: &'a [Part],
    inputs: &[Input],
) -> Result<Option<&'a Map<String, Value>>> {
    let mut common: Option<&Map<String, Value>> = None;
    for part in parts {
        for (log, input) in part.logs.iter().zip(inputs) {
            let Some(settings) = log.settings() else { continue };
            let wanted = *common.get_or_insert(settings);
            if wanted != settings {
                let path = part.folder.join(file_name(&input.log));
                return Err(Error::ShardSettings {
                    path,
                    difference: difference(wanted, settings),
                });
            }
        }
    }
    Ok(common)
}

/// What the shards say of each question of a file.
fn choose<'a>(
    file: usize,
    input: &'a Input,
    parts: &'a [Part],
    shares: &Shares<'_>,
) -> Result<Vec<Found<'a>>> {
    let (mut chosen, mut missing) = (Vec::new(), Vec::new());
    for question in input.questions.iter() {
        let found =
            parts.iter().filter_map(|part| Some((part, part.logs[file].outcome(question)?)));
        let captioned = |(_, outcome): &(&Part, &Outcome)| matches!(outcome, Outcome::Frames(_));
        let (frames, errors): (Vec<_>, Vec<_>) = found.partition(captioned);
        match (frames.as_slice(), errors.as_slice()) {
            ([], []) => missing.push(question),
            ([], [(_, error), ..]) => chosen.push((question, *error)),
            ([(_, frames)], _) => chosen.push((question, *frames)),
            ([(first, _), (second, _), ..], _) => {
                let (id, path) = (question.id(), input.data_path.clone());
                let (first, second) = (first.folder.clone(), second.folder.clone());
                return Err(Error::CaptionedTwice { id, path, first, second });
            }
        }
    }
    let Some(first) = missing.first() else { return Ok(chosen) };
    let shard = parts.iter().find(|part| part.shard.index() == shares.of(first));
    let mut ids: Vec<String> =
        missing.iter().take(NAMED).map(|question| format!("`{}`", question.id())).collect();
    if missing.len() > NAMED {
        ids.push("…".to_owned());
    }
    Err(Error::NotCaptioned {
        path: input.data_path.clone(),
        count: missing.len(),
        ids: ids.join(", "),
        shard: shard.map(|part| part.shard.to_string()).unwrap_or_default(),
    })
}

fn write(
    input: &Input,
    mut log: CaptionLog,
    chosen: &[Found<'_>],
    settings: &Map<String, Value>,
) -> Result<Merged> {
    for (question, outcome) in chosen {
        log.append(question, settings, (*outcome).clone())?;
    }
    // What failed in its shard may have been done since, without shards.
    let done = |question: &&Question| log.finished(question).is_some();
    let finished = input.questions.iter().filter(done).count();
    let merged = Merged {
        output: input.output.clone(),
        log: input.log.clone(),
        questions: input.questions.len(),
        finished,
        failed: input.questions.len() - finished,
    };
    super::write(input, log)?;
    Ok(merged)
}
