//! The two benchmarks that Embodied-R trains on.

use std::path::{Path, PathBuf};

use serde::Serialize;

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
