//! Options of `embodied-r preprocess`.

use std::path::PathBuf;

use clap::ValueEnum;

/// Build one question set from VSI-Bench and UrbanVideo-Bench, split by scene.
///
/// Reads `VSI-Bench/{*.zip,test-00000-of-00001.parquet}` and `UrbanVideo-Bench/{videos/,MCQ.parquet}` in the data
/// directory, or only one of them, and writes `complete/{train,val,test}_data.json`, `complete/videos/` and
/// `complete/summary.json` to the output directory. No scene appears in two splits. Safe to run again.
#[derive(Debug, clap::Args)]
pub(crate) struct PreprocessArgs {
    /// Directory that holds the downloaded benchmarks.
    #[arg(long, alias = "input", value_name = "DIR", default_value = "dataset/")]
    pub(crate) data: PathBuf,
    /// Directory to write `complete/` to.
    #[arg(long, value_name = "DIR", default_value = "dataset/")]
    pub(crate) output: PathBuf,
    /// How videos are placed in `complete/videos/`. Zip archives are extracted and always kept.
    #[arg(long, value_enum, default_value_t = Videos::Link)]
    pub(crate) videos: Videos,
    /// Write the questions only, without their videos.
    #[arg(long, conflicts_with = "videos")]
    pub(crate) annotations_only: bool,
    /// Number of cross-validation folds [default: no folds, one split of 75 % train, 5 % val and 20 % test].
    #[arg(long, value_name = "N", requires = "fold")]
    pub(crate) folds: Option<usize>,
    /// Fold to use as the test split, counted from 0.
    #[arg(long, value_name = "I", requires = "folds")]
    pub(crate) fold: Option<usize>,
    /// Random seed for the split, which is the same on every machine.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Keep all categories, including VSI-Bench's numeric ones, instead of the eight of Embodied-R.
    #[arg(long)]
    pub(crate) all_categories: bool,
}

/// How a video is placed in the output directory.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Videos {
    /// Hard-link, or copy where the file system does not support hard links.
    Link,
    /// Copy.
    Copy,
    /// Move out of the data directory.
    Move,
}
