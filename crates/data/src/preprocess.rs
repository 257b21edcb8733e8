//! Merges both benchmarks into one dataset: questions split by scene, and their videos in one folder.
//!
//! ```text
//! INPUT/VSI-Bench/{*.zip, test-00000-of-00001.parquet}    OUTPUT/complete/train_data.json
//! INPUT/UrbanVideo-Bench/{videos/, MCQ.parquet}       ->  OUTPUT/complete/val_data.json
//!                                                         OUTPUT/complete/test_data.json
//!                                                         OUTPUT/complete/videos/
//!                                                         OUTPUT/complete/summary.json
//! ```
//!
//! All input is validated before anything is written. Videos are written first, then all question
//! files together, so an interrupted run leaves the previous question files intact and can be
//! repeated.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use embodied_r_files::{remove_abandoned, write_all_atomic};
use serde::Serialize;

use crate::benchmark::Benchmark;
use crate::duplicates::find_duplicate;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::question::Question;
use crate::row::Row;
use crate::split::{self, Split, SplitStrategy};
use crate::videos::{self, PlaceOutcome, Transfer, VideoIndex, VideoSource};
use crate::{urban, vsi};

mod summary;

use summary::SUMMARY;
pub use summary::{CategoryCount, PreprocessSummary, SplitCount, VideoCount, strategy_of};

/// The subfolder of the output with the merged dataset.
const FOLDER: &str = "complete";

/// Which question categories to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Categories {
    /// Embodied-R's eight multiple-choice tasks (VSI-Bench's three levels of `object_rel_direction`
    /// count as one).
    EmbodiedR,
    /// All categories, including VSI-Bench's numeric ones.
    All,
}

impl Categories {
    fn keep(self, benchmark: Benchmark, category: &str) -> bool {
        match self {
            Self::EmbodiedR => benchmark.categories().contains(&category),
            Self::All => true,
        }
    }
}

/// Preprocessing options.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreprocessOptions {
    /// The folder with `VSI-Bench/`, `UrbanVideo-Bench/` or both.
    pub input: PathBuf,
    /// The folder to create `complete/` in.
    pub output: PathBuf,
    /// How videos get into `complete/videos/`; `None` leaves them where they are: only the questions are
    /// written.
    pub videos: Option<Transfer>,
    /// How scenes are assigned to splits.
    #[serde(rename = "plan")]
    pub strategy: SplitStrategy,
    /// Random seed of the split.
    pub seed: u64,
    /// Which question categories to keep.
    pub categories: Categories,
}

/// A kept question and its origin.
struct Item {
    benchmark: Benchmark,
    dataset: Option<String>,
    question: Question,
}

/// Merges the benchmarks found in the input folder.
///
/// # Errors
/// The input has no benchmark or no question of the categories, an annotation file, archive or video is
/// invalid, the videos do not fit, or the output cannot be written.
pub fn run(options: &PreprocessOptions, progress: &dyn Progress) -> Result<PreprocessSummary> {
    let benchmarks = present(&options.input)?;
    progress.start("reading annotations", Some(benchmarks.len() as u64));
    let mut items = Vec::new();
    let mut summary = PreprocessSummary::default();
    for &benchmark in &benchmarks {
        let path = benchmark.annotations(&options.input);
        match benchmark {
            Benchmark::Vsi => {
                let rows = vsi::read_parquet(&path)?;
                keep(benchmark, &rows, &path, options, &mut items, &mut summary)?;
            }
            Benchmark::Urban => {
                let rows = urban::read_parquet(&path)?;
                keep(benchmark, &rows, &path, options, &mut items, &mut summary)?;
            }
        }
        progress.advance(1);
    }
    progress.finish();
    if items.is_empty() {
        return Err(Error::NothingKept { path: options.input.clone() });
    }

    let splits = assign_splits(&items, &benchmarks, options);
    summary.splits = summary::count_splits(
        items.iter().map(|item| (item.benchmark, item.question.scene_name.as_deref())),
        &splits,
    );
    let folder = options.output.join(FOLDER);
    place_videos(&mut items, &benchmarks, &folder.join("videos"), options, &mut summary, progress)?;
    write(items, &splits, &folder, options, &summary)?;
    Ok(summary)
}

/// The benchmarks whose annotations are in the input folder.
fn present(input: &Path) -> Result<Vec<Benchmark>> {
    fs::read_dir(input).map_err(Error::io("read", input))?;
    let mut benchmarks = Vec::new();
    for benchmark in [Benchmark::Vsi, Benchmark::Urban] {
        let annotations = benchmark.annotations(input);
        if annotations.exists() {
            benchmarks.push(benchmark);
        } else if input.join(benchmark.name()).read_dir().is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| !is_hidden(&file.file_name())))
        }) {
            // Videos without annotations: an incomplete download.
            fs::File::open(&annotations).map_err(Error::io("read", &annotations))?;
        }
    }
    if benchmarks.is_empty() {
        return Err(Error::NoBenchmark { path: input.into() });
    }
    Ok(benchmarks)
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Appends the kept rows to `items` and counts all rows.
fn keep(
    benchmark: Benchmark,
    rows: &[impl Row],
    path: &Path,
    options: &PreprocessOptions,
    items: &mut Vec<Item>,
    summary: &mut PreprocessSummary,
) -> Result<()> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let (start, mut numbers) = (items.len(), Vec::new());
    for (number, row) in rows.iter().enumerate() {
        let (kept, dropped) = counts.entry(row.category()).or_default();
        if !options.categories.keep(benchmark, row.category()) {
            *dropped += 1;
            continue;
        }
        *kept += 1;
        let question = row.question(path, number)?;
        numbers.push(number);
        items.push(Item { benchmark, dataset: row.source().map(str::to_owned), question });
    }
    let keys = items[start..].iter().map(|item| item.question.key());
    if let Some((first, second)) = find_duplicate(keys) {
        return Err(Error::DuplicateQuestion {
            first: format!("row {}", numbers[first]),
            second: format!("row {} of `{}`", numbers[second], path.display()),
            key: items[start + second].question.key(),
        });
    }
    summary.categories.extend(counts.into_iter().map(|(category, (kept, dropped))| {
        CategoryCount { benchmark, category: category.to_owned(), kept, dropped }
    }));
    Ok(())
}

/// The split of each scene.
///
/// Scenes of Embodied-R's categories are assigned first, then the others, so that a scene's split
/// does not depend on the kept categories. A scene of both benchmarks (none in the published files)
/// is assigned once.
fn assign_splits(
    items: &[Item],
    benchmarks: &[Benchmark],
    options: &PreprocessOptions,
) -> BTreeMap<String, Split> {
    let mut splits: BTreeMap<String, Split> = BTreeMap::new();
    for &benchmark in benchmarks {
        for in_embodied_r in [true, false] {
            let scenes = items
                .iter()
                .filter(|Item { benchmark: of, question, .. }| {
                    let category = question.question_category.as_str();
                    *of == benchmark && benchmark.categories().contains(&category) == in_embodied_r
                })
                .filter_map(|item| item.question.scene_name.as_deref())
                .filter(|scene| !splits.contains_key(*scene));
            let assigned = split::assign(scenes, benchmark.name(), options.strategy, options.seed);
            splits.extend(assigned);
        }
    }
    splits
}

/// Places the videos in their folder and sets their paths in the questions.
fn place_videos(
    items: &mut [Item],
    benchmarks: &[Benchmark],
    folder: &Path,
    options: &PreprocessOptions,
    summary: &mut PreprocessSummary,
    progress: &dyn Progress,
) -> Result<()> {
    let scanned = benchmarks.iter().filter(|_| options.videos.is_some());
    let indices: BTreeMap<Benchmark, VideoIndex> = scanned
        .map(|&benchmark| Ok((benchmark, VideoIndex::scan(&options.input.join(benchmark.name()))?)))
        .collect::<Result<_>>()?;

    let mut placements: BTreeMap<String, Benchmark> = BTreeMap::new();
    let mut jobs: Vec<(VideoSource, PathBuf)> = Vec::new();
    let mut owners: Vec<Benchmark> = Vec::new();
    let mut counts: BTreeMap<Benchmark, VideoCount> =
        benchmarks.iter().map(|&benchmark| (benchmark, VideoCount::new(benchmark))).collect();
    for item in items.iter_mut() {
        let Item { benchmark, dataset, question } = item;
        let Some(video_id) = question.video_id.clone() else { continue };
        let target = folder.join(&video_id);
        question.videos = Some(target.to_string_lossy().into_owned());
        let Some(count) = counts.get_mut(benchmark) else { continue };
        if let Some(owner) = placements.get(&video_id) {
            if owner != benchmark {
                return Err(Error::SharedVideo { video_id });
            }
            count.questions_without += usize::from(count.missing.contains(&video_id));
            continue;
        }
        placements.insert(video_id.clone(), *benchmark);
        count.videos += 1;
        let source = indices.get(benchmark).and_then(|it| it.find(&video_id, dataset.as_deref()));
        match source {
            Some(source) => {
                jobs.push((source.clone(), target));
                owners.push(*benchmark);
            }
            // Moved here by an earlier run.
            None if target.is_file() => count.already += 1,
            None => {
                count.missing.insert(video_id);
                count.questions_without += 1;
            }
        }
    }

    if let Some(transfer) = options.videos.filter(|_| !jobs.is_empty()) {
        videos::check_space(&jobs, transfer, folder)?;
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        remove_abandoned(folder)?;
        progress.start("placing videos", Some(jobs.len() as u64));
        let placed = videos::place_all(&jobs, transfer, progress);
        progress.finish();
        for (placed, owner) in placed?.into_iter().zip(owners) {
            let Some(count) = counts.get_mut(&owner) else { continue };
            match placed {
                PlaceOutcome::New => count.placed += 1,
                PlaceOutcome::AlreadyPresent => count.already += 1,
            }
        }
    }
    summary.videos = counts.into_values().collect();
    Ok(())
}

/// Writes the question files and the summary.
fn write(
    items: Vec<Item>,
    splits: &BTreeMap<String, Split>,
    folder: &Path,
    options: &PreprocessOptions,
    summary: &PreprocessSummary,
) -> Result<()> {
    #[derive(Serialize)]
    struct Report<'a> {
        options: &'a PreprocessOptions,
        #[serde(flatten)]
        summary: &'a PreprocessSummary,
    }
    let mut parts: BTreeMap<Split, Vec<Question>> =
        Split::ALL.iter().map(|&split| (split, Vec::new())).collect();
    for Item { question, .. } in items {
        let split = question.scene_name.as_ref().and_then(|scene| splits.get(scene));
        let Some(part) = split.and_then(|split| parts.get_mut(split)) else { continue };
        part.push(question);
    }
    let mut files = Vec::new();
    for (split, questions) in &parts {
        files.push(json_file(folder.join(format!("{}_data.json", split.name())), questions)?);
    }
    files.push(json_file(folder.join(SUMMARY), &Report { options, summary })?);
    Ok(write_all_atomic(&files)?)
}

fn json_file(path: PathBuf, value: &impl Serialize) -> Result<(PathBuf, Vec<u8>)> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            Ok((path, text))
        }
        Err(source) => Err(Error::Json { path, source }),
    }
}

#[cfg(test)]
mod tests;
