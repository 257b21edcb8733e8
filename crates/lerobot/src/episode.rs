//! Episodes: what the metadata says about one, and the columns of one.

use std::collections::BTreeMap;

/// An episode, as the metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpisodeInfo {
    /// Its `episode_index`, which is also its position in [`Dataset::episodes`](crate::Dataset::episodes).
    pub index: usize,
    /// Its number of frames.
    pub length: usize,
    /// The instructions of its frames, each once.
    pub tasks: Vec<String>,
}

/// The columns of an episode that were asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Its `episode_index`.
    pub index: usize,
    /// The instructions of its frames, in order: the first from frame 0 on, each until the next one.
    pub tasks: Vec<TaskSpan>,
    /// The time of each frame in seconds from the start of the episode, ascending.
    pub timestamps: Vec<f64>,
    /// The columns by feature.
    pub columns: BTreeMap<String, Column>,
}

/// An instruction that holds from a frame of an episode on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSpan {
    /// The first frame that it is of.
    pub start: usize,
    /// The instruction.
    pub task: String,
}

/// The values of a feature over an episode. All are finite, also as `f32`.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Values per frame: the product of the feature's shape.
    pub width: usize,
    /// The values, frames × width, row by row.
    pub values: Vec<f64>,
}

impl Column {
    /// The values of frame `frame`; empty beyond the last one.
    pub fn row(&self, frame: usize) -> &[f64] {
        let start = frame.saturating_mul(self.width);
        self.values.get(start..start.saturating_add(self.width)).unwrap_or_default()
    }

    /// The number of frames.
    pub fn frames(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }
}
