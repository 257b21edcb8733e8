//! The two benchmarks that Embodied-R trains on, and the common interface of their rows.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Result;
use crate::question::Question;
use crate::{urban, vsi};

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Benchmark {
    /// VSI-Bench: videos of rooms.
    #[serde(rename = "VSI-Bench")]
    Vsi,
    /// UrbanVideo-Bench: drone flights through cities.
    #[serde(rename = "UrbanVideo-Bench")]
    Urban,
}

impl Benchmark {
    /// Its name, also that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vsi => "VSI-Bench",
            Self::Urban => "UrbanVideo-Bench",
        }
    }

    /// The categories that Embodied-R trains and is evaluated on.
    pub fn categories(self) -> &'static [&'static str] {
        match self {
            Self::Vsi => &vsi::CATEGORIES,
            Self::Urban => &urban::CATEGORIES,
        }
    }

    /// The path of its annotation file, below the folder with the benchmarks.
    pub fn annotations(self, input: &Path) -> PathBuf {
        let file = match self {
            Self::Vsi => vsi::ANNOTATIONS,
            Self::Urban => urban::ANNOTATIONS,
        };
        input.join(self.name()).join(file)
    }
}

/// A row of a benchmark's annotation file.
pub(crate) trait Row {
    /// The row's benchmark.
    const BENCHMARK: Benchmark;

    /// Its category.
    fn category(&self) -> &str;

    /// The video's source dataset, if the benchmark has several.
    fn source(&self) -> Option<&str>;

    /// The question in the common format, without the path of its video. `path` and `row` locate
    /// the row in errors.
    fn question(&self, path: &Path, row: usize) -> Result<Question>;
}

/// Whether `name` is a plain file name, without path traversal.
pub(crate) fn file_name(name: &str) -> bool {
    let stem = name.strip_suffix(".mp4").unwrap_or(name);
    !stem.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '\\', '\0'])
}

/// The index of an option by its upper-case letter.
pub(crate) fn option_letter(answer: &str) -> Option<usize> {
    match answer.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    }
}
