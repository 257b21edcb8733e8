//! Arguments of `embodied-r preprocess`.

use std::path::PathBuf;

use clap::ValueEnum;

/// Unify VSI-Bench and UrbanVideo-Bench into one question set, split by scene.
///
/// Reads `VSI-Bench/{*.zip,test-00000-of-00001.parquet}` and `UrbanVideo-Bench/{videos/,MCQ.parquet}`
/// of the input folder, or either of the two, and writes `complete/{train,val,test}_data.json`,
/// `complete/videos/` and `complete/summary.json` into the output folder. No scene is in two parts.
/// It can be run again into the same output.
#[derive(Debug, clap::Args)]
pub(crate) struct PreprocessArgs {
    /// Folder that holds the benchmarks.
    #[arg(long, value_name = "DIR", default_value = "dataset/")]
    pub(crate) input: PathBuf,
    /// Folder that `complete/` is written into.
    #[arg(long, value_name = "DIR", default_value = "dataset/")]
    pub(crate) output: PathBuf,
    /// How videos come into `complete/videos/`. Zip archives are unpacked and always kept.
    #[arg(long, value_enum, default_value_t = Videos::Link)]
    pub(crate) videos: Videos,
    /// Cross-validation over so many folds, in place of 75 % train, 5 % val and 20 % test.
    #[arg(long, value_name = "N", requires = "fold")]
    pub(crate) folds: Option<usize>,
    /// The fold that is the test part, counted from 0.
    #[arg(long, value_name = "I", requires = "folds")]
    pub(crate) fold: Option<usize>,
    /// Seed of the split; the same seed gives the same split on every machine.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Keep every category, VSI-Bench's numeric ones too, not only the eight of Embodied-R.
    #[arg(long)]
    pub(crate) all_categories: bool,
}

/// How a video comes to its new place.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Videos {
    /// Hard links; copies where the file system has none.
    Link,
    /// Copies.
    Copy,
    /// Moves them: they are gone from the input folder.
    Move,
}
