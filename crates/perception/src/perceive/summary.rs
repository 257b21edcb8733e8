//! What a run did.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::captioner::CaptionFault;

/// Results of one data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerceiveSummary {
    /// The data file.
    pub data_path: PathBuf,
    /// The prompts.
    pub output: PathBuf,
    /// The caption log.
    pub log: PathBuf,
    /// Questions in the data file, without [`PerceiveSummary::unanswered`].
    pub questions: usize,
    /// Records skipped because their answers are unknown.
    pub unanswered: usize,
    /// Questions finished by an earlier run.
    #[serde(rename = "already")]
    pub already_finished: usize,
    /// Questions finished by this run.
    pub finished: usize,
    /// Questions that failed in this run.
    pub failed: usize,
    /// Failed questions that the annotations cannot support, by category.
    pub unsupported: BTreeMap<String, usize>,
    /// Failed questions whose video does not exist.
    #[serde(default)]
    pub missing_videos: usize,
    /// Failed questions with a frame that the model refused to describe.
    pub refused: usize,
    /// Questions not tried because of the cost limit.
    #[serde(rename = "unpaid")]
    pub over_budget: usize,
    /// Questions not tried or not finished because the run was interrupted.
    #[serde(rename = "stopped")]
    pub interrupted: usize,
    /// Faulty captions of this run, by fault.
    pub faults: BTreeMap<CaptionFault, usize>,
}

impl PerceiveSummary {
    /// Questions beyond [`PerceiveOptions::limit`](super::PerceiveOptions::limit): neither finished, failed nor abandoned.
    pub fn remaining(&self) -> usize {
        let abandoned = self.over_budget + self.interrupted;
        self.questions - self.already_finished - self.finished - self.failed - abandoned
    }

    /// The sum of this summary and `other`.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for (count, more) in [
            (&mut self.questions, other.questions),
            (&mut self.already_finished, other.already_finished),
            (&mut self.finished, other.finished),
            (&mut self.failed, other.failed),
            (&mut self.missing_videos, other.missing_videos),
            (&mut self.refused, other.refused),
            (&mut self.over_budget, other.over_budget),
            (&mut self.interrupted, other.interrupted),
        ] {
            *count += more;
        }
        for (category, more) in &other.unsupported {
            *self.unsupported.entry(category.clone()).or_default() += more;
        }
        for (fault, more) in &other.faults {
            *self.faults.entry(*fault).or_default() += more;
        }
        self
    }
}
