//! Merging the outputs of shards.

use std::path::{Path, PathBuf};

use embodied_r_data::{Progress, Question};
use embodied_r_files::journal::changes;
use serde_json::{Map, Value};

use super::files;
use super::input::{self, Input, file_name};
use super::log::{CaptionLog, ExpectedSettings, Outcome};
use super::options::ChangedSettings;
use super::shard::{Shard, ShardAssignment};
use crate::error::{Error, Result};

/// Questions that an error about missing captions names.
const NAMED: usize = 5;

/// What to merge.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// The data files of all shards.
    pub data_paths: Vec<PathBuf>,
    /// File of EgoSchema's answers; `None` looks next to its questions.
    pub answers: Option<PathBuf>,
    /// Output folder.
    pub save_path: PathBuf,
    /// Folders of the shards, `shard-1-of-8` and so on; if empty, those in the output folder.
    pub shards: Vec<PathBuf>,
}

/// Results of one data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeReport {
    /// The prompts.
    pub output: PathBuf,
    /// The caption log.
    pub log: PathBuf,
    /// Questions in the data file.
    pub questions: usize,
    /// Questions with captions.
    pub finished: usize,
    /// Questions that failed.
    pub failed: usize,
}

/// One shard's logs, in the order of the data files.
struct ShardLogs {
    shard: Shard,
    folder: PathBuf,
    logs: Vec<CaptionLog>,
}

/// Writes the same outputs as one run without shards.
///
/// # Errors
/// A shard or a question is missing, duplicated, was made with other settings, or is still running;
/// files that cannot be read or written. Nothing is written then.
pub fn merge(options: &MergeOptions, progress: &dyn Progress) -> Result<Vec<MergeReport>> {
    let inputs = input::read(&options.data_paths, options.answers.as_deref(), &options.save_path)?;
    let folders = match options.shards.is_empty() {
        true => shard_folders(&options.save_path)?,
        false => options.shards.clone(),
    };
    let parts = check_shards(&folders, &options.save_path)?;
    let parts = parts.into_iter().map(|(shard, folder)| open(shard, folder, &inputs, progress));
    let parts: Vec<ShardLogs> = parts.collect::<Result<_>>()?;
    let settings = common_settings(&parts, &inputs)?;
    let assignment =
        ShardAssignment::new(inputs.iter().flat_map(|input| input.questions.iter()), parts.len());
    let chosen: Vec<Vec<ShardResult<'_>>> = (inputs.iter().enumerate())
        .map(|(file, input)| choose(file, input, &parts, &assignment))
        .collect::<Result<_>>()?;
    let none = Map::new();
    let settings = settings.unwrap_or(&none);
    let expected = ExpectedSettings::Exactly(settings, ChangedSettings::Reject);
    let opened = inputs.iter().map(|input| CaptionLog::open(&input.log, expected, progress));
    let logs: Vec<CaptionLog> = opened.collect::<Result<_>>()?;
    let files = inputs.iter().zip(logs).zip(chosen);
    files.map(|((input, log), chosen)| write(input, log, &chosen, settings)).collect()
}

/// A question and its shard's result.
type ShardResult<'a> = (&'a Question, &'a Outcome);

/// The folders of shards in `save_path`.
fn shard_folders(save_path: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(save_path).map_err(Error::io("read", save_path))?;
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io("read", save_path))?.path()));
    let mut folders: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    folders.retain(|folder| Shard::from_folder(folder).is_some());
    Ok(folders)
}

/// The shards in order, after checking that each exists once.
fn check_shards(folders: &[PathBuf], save_path: &Path) -> Result<Vec<(Shard, PathBuf)>> {
    let mut parts: Vec<(Shard, PathBuf)> = Vec::new();
    for folder in folders {
        let Some(shard) = Shard::from_folder(folder) else {
            return Err(Error::NotAShard { folder: folder.clone() });
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
    let exists = |index| parts.iter().any(|(shard, _)| shard.index() == index);
    match (1..=count).find(|&index| !exists(index)).and_then(|index| Shard::new(index, count)) {
        Some(missing) => Err(Error::ShardMissing { folder: missing.folder(save_path) }),
        None => Ok(parts),
    }
}

fn open(
    shard: Shard,
    folder: PathBuf,
    inputs: &[Input],
    progress: &dyn Progress,
) -> Result<ShardLogs> {
    let log = |input: &Input| {
        let path = folder.join(file_name(&input.log));
        if !path.is_file() {
            return Err(Error::ShardMissing { folder: path });
        }
        CaptionLog::open(&path, ExpectedSettings::Uniform, progress)
    };
    let logs = inputs.iter().map(log).collect::<Result<_>>()?;
    Ok(ShardLogs { shard, folder, logs })
}

/// The settings of all captions; `None` if there are no captions.
fn common_settings<'a>(
    parts: &'a [ShardLogs],
    inputs: &[Input],
) -> Result<Option<&'a Map<String, Value>>> {
    let mut common: Option<&Map<String, Value>> = None;
    for part in parts {
        for (log, input) in part.logs.iter().zip(inputs) {
            let Some(settings) = log.settings() else { continue };
            let expected = *common.get_or_insert(settings);
            if expected != settings {
                let path = part.folder.join(file_name(&input.log));
                return Err(Error::ShardSettings { path, difference: changes(expected, settings) });
            }
        }
    }
    Ok(common)
}

/// The result of each question of a file.
fn choose<'a>(
    file: usize,
    input: &'a Input,
    parts: &'a [ShardLogs],
    assignment: &ShardAssignment<'_>,
) -> Result<Vec<ShardResult<'a>>> {
    let (mut chosen, mut missing) = (Vec::new(), Vec::new());
    for question in input.questions.iter() {
        let found =
            parts.iter().filter_map(|part| Some((part, part.logs[file].outcome(question)?)));
        let captioned =
            |(_, outcome): &(&ShardLogs, &Outcome)| matches!(outcome, Outcome::Frames(_));
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
    let shard = parts.iter().find(|part| part.shard.index() == assignment.of(first));
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
    chosen: &[ShardResult<'_>],
    settings: &Map<String, Value>,
) -> Result<MergeReport> {
    for (question, outcome) in chosen {
        log.append(question, settings, (*outcome).clone())?;
    }
    // A question that failed in its shard may have been finished since by a run without shards.
    let is_finished = |question: &&Question| log.finished(question).is_some();
    let finished = input.questions.iter().filter(is_finished).count();
    let merged = MergeReport {
        output: input.output.clone(),
        log: input.log.clone(),
        questions: input.questions.len(),
        finished,
        failed: input.questions.len() - finished,
    };
    files::write(input, log)?;
    Ok(merged)
}
