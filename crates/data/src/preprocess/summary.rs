//! Statistics of a preprocessing run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::benchmark::Benchmark;
use crate::split::{Split, SplitStrategy};

/// The name of the summary, beside the question files.
pub(super) const SUMMARY: &str = "summary.json";

/// Statistics of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PreprocessSummary {
    /// Questions by benchmark and category.
    pub categories: Vec<CategoryCount>,
    /// Scenes and questions by benchmark and split.
    pub splits: Vec<SplitCount>,
    /// Videos by benchmark.
    pub videos: Vec<VideoCount>,
}

impl PreprocessSummary {
    /// The number of questions kept.
    pub fn kept(&self) -> usize {
        self.categories.iter().map(|count| count.kept).sum()
    }

    /// The number of videos that are in place.
    pub fn videos_present(&self) -> usize {
        self.videos.iter().map(|count| count.placed + count.already).sum()
    }
}

/// The questions of a category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CategoryCount {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The category.
    pub category: String,
    /// Number of kept questions.
    pub kept: usize,
    /// Number of dropped questions.
    pub dropped: usize,
}

/// The size of a split, per benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitCount {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The split.
    pub split: Split,
    /// Number of scenes.
    pub scenes: usize,
    /// Number of questions.
    pub questions: usize,
}

/// The videos of a benchmark's kept questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VideoCount {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// Number of videos that the questions refer to.
    pub videos: usize,
    /// Number of newly placed videos.
    pub placed: usize,
    /// Number of videos that were already in place.
    pub already: usize,
    /// Missing videos.
    pub missing: BTreeSet<String>,
    /// Number of kept questions whose video is missing.
    pub questions_without: usize,
}

impl VideoCount {
    pub(super) fn new(benchmark: Benchmark) -> Self {
        Self {
            benchmark,
            videos: 0,
            placed: 0,
            already: 0,
            missing: BTreeSet::new(),
            questions_without: 0,
        }
    }
}

/// The size of each split, from the benchmark and the scene of each question.
pub(super) fn count_splits<'a>(
    scenes: impl Iterator<Item = (Benchmark, Option<&'a str>)>,
    splits: &BTreeMap<String, Split>,
) -> Vec<SplitCount> {
    let mut counts: BTreeMap<(Benchmark, Split), (BTreeSet<&str>, usize)> = BTreeMap::new();
    for (benchmark, scene) in scenes {
        for split in Split::ALL {
            counts.entry((benchmark, split)).or_default();
        }
        let Some((scene, &split)) = scene.and_then(|scene| Some((scene, splits.get(scene)?)))
        else {
            continue;
        };
        let (scenes, questions) = counts.entry((benchmark, split)).or_default();
        scenes.insert(scene);
        *questions += 1;
    }
    counts
        .into_iter()
        .map(|((benchmark, split), (scenes, questions))| SplitCount {
            benchmark,
            split,
            scenes: scenes.len(),
            questions,
        })
        .collect()
}

/// How the scenes of the question file at `path` were assigned to splits, from the summary beside it; `None` if there is
/// none of [`run`](super::run).
pub fn strategy_of(path: &Path) -> Option<SplitStrategy> {
    #[derive(Deserialize)]
    struct Report {
        options: Options,
    }
    #[derive(Deserialize)]
    struct Options {
        plan: SplitStrategy,
    }
    let text = std::fs::read(path.with_file_name(SUMMARY)).ok()?;
    let report: Report = serde_json::from_slice(&text).ok()?;
    Some(report.options.plan)
}
