//! What a run kept, how it was split, and which videos are there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Item;
use crate::benchmark::Benchmark;
use crate::split::Split;

/// What a run did, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Questions by benchmark and category.
    pub categories: Vec<CategoryCount>,
    /// Scenes and questions by benchmark and part.
    pub splits: Vec<SplitCount>,
    /// Videos by benchmark.
    pub videos: Vec<VideoCount>,
}

impl Summary {
    /// The number of questions kept.
    pub fn kept(&self) -> usize {
        self.categories.iter().map(|count| count.kept).sum()
    }
}

/// The questions of a category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CategoryCount {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The category.
    pub category: String,
    /// How many were kept.
    pub kept: usize,
    /// How many were left out.
    pub dropped: usize,
}

/// A benchmark's share of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitCount {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The part.
    pub split: Split,
    /// How many scenes.
    pub scenes: usize,
    /// How many questions.
    pub questions: usize,
}

/// The videos of a benchmark's kept questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VideoCount {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// How many videos the questions name.
    pub videos: usize,
    /// How many were brought to their place.
    pub placed: usize,
    /// How many were there already.
    pub already: usize,
    /// Those that are nowhere.
    pub missing: BTreeSet<String>,
    /// How many questions are kept although their video is missing.
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

pub(super) fn count_splits(items: &[Item], splits: &BTreeMap<String, Split>) -> Vec<SplitCount> {
    let mut counts: BTreeMap<(Benchmark, Split), (BTreeSet<&str>, usize)> = BTreeMap::new();
    for Item { benchmark, question, .. } in items {
        for split in Split::ALL {
            counts.entry((*benchmark, split)).or_default();
        }
        let Some(scene) = question.scene_name.as_deref() else { continue };
        let Some(&split) = splits.get(scene) else { continue };
        let (scenes, questions) = counts.entry((*benchmark, split)).or_default();
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
