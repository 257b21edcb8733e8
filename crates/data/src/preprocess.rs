//! Both benchmarks made one: a set of questions split by scene, and their videos in one folder.
//!
//! ```text
//! INPUT/VSI-Bench/{*.zip, test-00000-of-00001.parquet}    OUTPUT/complete/train_data.json
//! INPUT/UrbanVideo-Bench/{videos/, MCQ.parquet}       ->  OUTPUT/complete/val_data.json
//!                                                         OUTPUT/complete/test_data.json
//!                                                         OUTPUT/complete/videos/
//!                                                         OUTPUT/complete/summary.json
//! ```
//!
//! Everything is checked before anything is written, the videos come first and the question files
//! last, all of them together: a run that was stopped leaves the questions of the run before, and is
//! simply started again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::benchmark::{Benchmark, Row};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::question::Question;
use crate::split::{self, Plan, Split};
use crate::videos::{self, Library, Placed, Source, Transfer};
use crate::write::write_all_atomic;
use crate::{urban, vsi};

mod summary;

pub use summary::{CategoryCount, SplitCount, Summary, VideoCount};

/// The folder within the output that the unified set lies in.
const FOLDER: &str = "complete";

/// Which questions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Categories {
    /// The eight multiple-choice tasks of Embodied-R (the three levels of VSI-Bench's
    /// `object_rel_direction` are one).
    EmbodiedR,
    /// All, with VSI-Bench's numeric ones.
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

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Options {
    /// The folder that holds `VSI-Bench/`, `UrbanVideo-Bench/` or both.
    pub input: PathBuf,
    /// The folder that `complete/` is made in.
    pub output: PathBuf,
    /// How videos come into `complete/videos/`.
    pub videos: Transfer,
    /// How scenes are dealt out.
    pub plan: Plan,
    /// Seed of the dealing.
    pub seed: u64,
    /// Which questions are kept.
    pub categories: Categories,
}

/// A kept question and where it is from.
struct Item {
    benchmark: Benchmark,
    dataset: Option<String>,
    question: Question,
}

/// Unifies the benchmarks found in the input folder.
///
/// # Errors
/// The input holds no benchmark, or an annotation file, archive or video of it cannot be used; or
/// the output cannot be written.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Summary> {
    let benchmarks = present(&options.input)?;
    progress.start("reading annotations", Some(benchmarks.len() as u64));
    let mut items = Vec::new();
    let mut summary = Summary::default();
    for &benchmark in &benchmarks {
        let path = benchmark.annotations(&options.input);
        match benchmark {
            Benchmark::Vsi => {
                keep(&vsi::read_parquet(&path)?, &path, options, &mut items, &mut summary)?;
            }
            Benchmark::Urban => {
                keep(&urban::read_parquet(&path)?, &path, options, &mut items, &mut summary)?;
            }
        }
        progress.advance(1);
    }
    progress.finish();

    let splits = deal(&items, &benchmarks, options);
    summary.splits = summary::count_splits(&items, &splits);
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
            // Videos without annotations: the download is not finished.
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

/// Adds the rows that are kept to the items, and counts them all.
fn keep<R: Row>(
    rows: &[R],
    path: &Path,
    options: &Options,
    items: &mut Vec<Item>,
    summary: &mut Summary,
) -> Result<()> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        let (kept, dropped) = counts.entry(row.category()).or_default();
        if !options.categories.keep(R::BENCHMARK, row.category()) {
            *dropped += 1;
            continue;
        }
        *kept += 1;
        items.push(Item {
            benchmark: R::BENCHMARK,
            dataset: row.source().map(str::to_owned),
            question: row.question(path, number)?,
        });
    }
    summary.categories.extend(counts.into_iter().map(|(category, (kept, dropped))| {
        CategoryCount { benchmark: R::BENCHMARK, category: category.to_owned(), kept, dropped }
    }));
    Ok(())
}

/// The part of each scene.
///
/// The scenes that Embodied-R's categories ask about are dealt out first and the others after them,
/// so that the part of a scene does not depend on which categories are kept. A scene that both
/// benchmarks name, as none is in the published files, is dealt out once.
fn deal(items: &[Item], benchmarks: &[Benchmark], options: &Options) -> BTreeMap<String, Split> {
    let mut splits: BTreeMap<String, Split> = BTreeMap::new();
    for &benchmark in benchmarks {
        for of_embodied_r in [true, false] {
            let scenes = items
                .iter()
                .filter(|Item { benchmark: of, question, .. }| {
                    let category = question.question_category.as_str();
                    *of == benchmark && benchmark.categories().contains(&category) == of_embodied_r
                })
                .filter_map(|item| item.question.scene_name.as_deref())
                .filter(|scene| !splits.contains_key(*scene));
            let dealt = split::assign(scenes, benchmark.name(), options.plan, options.seed);
            splits.extend(dealt);
        }
    }
    splits
}

/// Brings the videos to their folder, and writes their paths into the questions.
fn place_videos(
    items: &mut [Item],
    benchmarks: &[Benchmark],
    folder: &Path,
    options: &Options,
    summary: &mut Summary,
    progress: &dyn Progress,
) -> Result<()> {
    let libraries: BTreeMap<Benchmark, Library> = benchmarks
        .iter()
        .map(|&benchmark| Ok((benchmark, Library::below(&options.input.join(benchmark.name()))?)))
        .collect::<Result<_>>()?;
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;

    let mut places: BTreeMap<String, Benchmark> = BTreeMap::new();
    let mut jobs: Vec<(Source, PathBuf)> = Vec::new();
    let mut owners: Vec<Benchmark> = Vec::new();
    let mut counts: BTreeMap<Benchmark, VideoCount> =
        benchmarks.iter().map(|&benchmark| (benchmark, VideoCount::new(benchmark))).collect();
    for item in items.iter_mut() {
        let Item { benchmark, dataset, question } = item;
        let Some(video_id) = question.video_id.clone() else { continue };
        let place = folder.join(&video_id);
        question.videos = Some(place.to_string_lossy().into_owned());
        let Some(count) = counts.get_mut(benchmark) else { continue };
        if let Some(owner) = places.get(&video_id) {
            if owner != benchmark {
                return Err(Error::SharedVideo { video_id });
            }
            count.questions_without += usize::from(count.missing.contains(&video_id));
            continue;
        }
        places.insert(video_id.clone(), *benchmark);
        count.videos += 1;
        let source = libraries.get(benchmark).and_then(|it| it.find(&video_id, dataset.as_deref()));
        match source {
            Some(source) => {
                jobs.push((source.clone(), place));
                owners.push(*benchmark);
            }
            // Moved here by a run before.
            None if place.is_file() => count.already += 1,
            None => {
                count.missing.insert(video_id);
                count.questions_without += 1;
            }
        }
    }

    progress.start("placing videos", Some(jobs.len() as u64));
    let placed = videos::place_all(&jobs, options.videos, progress);
    progress.finish();
    for (placed, owner) in placed?.into_iter().zip(owners) {
        let Some(count) = counts.get_mut(&owner) else { continue };
        match placed {
            Placed::New => count.placed += 1,
            Placed::Already => count.already += 1,
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
    options: &Options,
    summary: &Summary,
) -> Result<()> {
    #[derive(Serialize)]
    struct Report<'a> {
        options: &'a Options,
        #[serde(flatten)]
        summary: &'a Summary,
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
        files.push(json(folder.join(format!("{}_data.json", split.name())), questions)?);
    }
    files.push(json(folder.join("summary.json"), &Report { options, summary })?);
    write_all_atomic(&files)
}

fn json(path: PathBuf, value: &impl Serialize) -> Result<(PathBuf, Vec<u8>)> {
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
