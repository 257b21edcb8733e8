//! The benchmarks' scoring protocols and categories.

use std::borrow::Cow;
use std::collections::BTreeSet;

use embodied_r_rewards::accuracy::{Accuracy, Solution};
use embodied_r_rewards::numeric::mean_relative_accuracy;
use embodied_r_rewards::{Reward as _, RewardInput};

use crate::category::category_name;
use crate::error::{Error, Result};
use crate::predictions::{Prediction, PredictionOutput};

mod fuzzy;
mod option_line;

/// A benchmark's scoring protocol: its categories, answer matching and overall score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Embodied-R's eight multiple-choice tasks; overall is the mean over questions.
    EmbodiedR,
    /// VSI-Bench's eight tasks, with mean relative accuracy for numeric ones; overall is the mean
    /// over tasks.
    VsiBench,
    /// UrbanVideo-Bench's sixteen tasks; overall is the mean over questions.
    UrbanVideoBench,
    /// EgoSchema's questions with published answers (out of domain for Embodied-R); overall is the
    /// mean over questions.
    EgoSchema,
    /// MVBench's egocentric navigation task (out of domain for Embodied-R); overall is the mean over
    /// questions.
    MvBench,
    /// Robot-R1's three kinds of multiple-choice questions, made from demonstrations; overall is the mean over questions.
    RobotR1,
    /// Questions of any category, by the accuracy reward; overall is the mean over questions.
    Accuracy,
}

/// The mean used as a protocol's overall score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mean {
    /// Mean over questions.
    Micro,
    /// Mean over categories.
    Macro,
}

/// How the difficulty levels of a category are combined into one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelAggregation {
    /// Mean over the questions of all levels.
    Pooled,
    /// Mean over the levels' scores.
    Averaged,
}

/// The merged name of VSI-Bench's direction questions of all levels.
pub const DIRECTION: &str = "object_rel_direction";
const DIRECTION_LEVELS: [&str; 3] =
    ["object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard"];

/// In the order of its published table.
pub(crate) const EMBODIED_R: [&str; 8] = [
    "Landmark Position",
    "Counterfactual",
    "Progress Evaluation",
    "Action Generation",
    "object_rel_distance",
    DIRECTION,
    "route_planning",
    "obj_appearance_order",
];

const NUMERIC: [&str; 4] =
    ["object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation"];

/// In the order of its published table.
pub(crate) const VSI_BENCH: [&str; 8] = [
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    DIRECTION,
    "route_planning",
    "obj_appearance_order",
];

const URBANVIDEO_BENCH: [&str; 16] = [
    "Trajectory Captioning",
    "Sequence Recall",
    "Object Recall",
    "Scene Recall",
    "Start/End Position",
    "Proximity",
    "Duration",
    "Landmark Position",
    "Goal Detection",
    "Cognitive Map",
    "Causal",
    "Counterfactual",
    "Association Reasoning",
    "Progress Evaluation",
    "High-level Planning",
    "Action Generation",
];

const EGOSCHEMA: [&str; 1] = [embodied_r_data::egoschema::CATEGORY];

const MVBENCH: [&str; 1] = [embodied_r_data::mvbench::CATEGORY];

/// The kinds of questions: the next key point, the current state, and the movement between them.
const ROBOT_R1: [&str; 3] = ["waypoint", "state", "movement"];

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 7] = [
        Self::EmbodiedR,
        Self::VsiBench,
        Self::UrbanVideoBench,
        Self::EgoSchema,
        Self::MvBench,
        Self::RobotR1,
        Self::Accuracy,
    ];

    /// Its command-line name.
    pub fn name(self) -> &'static str {
        match self {
            Self::EmbodiedR => "embodied-r",
            Self::VsiBench => "vsi-bench",
            Self::UrbanVideoBench => "urbanvideo-bench",
            Self::EgoSchema => "egoschema",
            Self::MvBench => "mvbench",
            Self::RobotR1 => "robot-r1",
            Self::Accuracy => "accuracy",
        }
    }

    /// The protocol called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// The scored categories, levels merged, in table order; none for [`Self::Accuracy`], which scores all.
    pub fn categories(self) -> &'static [&'static str] {
        match self {
            Self::EmbodiedR => &EMBODIED_R,
            Self::VsiBench => &VSI_BENCH,
            Self::UrbanVideoBench => &URBANVIDEO_BENCH,
            Self::EgoSchema => &EGOSCHEMA,
            Self::MvBench => &MVBENCH,
            Self::RobotR1 => &ROBOT_R1,
            Self::Accuracy => &[],
        }
    }

    /// The protocol that alone scores the questions of all `categories`, if any: that of an out-of-domain benchmark, or of
    /// questions about robots; [`Self::Accuracy`] if no benchmark has any of them.
    pub fn of_categories<'a>(categories: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let categories: BTreeSet<&str> = categories.into_iter().collect();
        let scores = |set: Self, category: &&str| set.scored_category(category).is_some();
        let is_known = |category: &&str| {
            Self::ALL
                .into_iter()
                .filter(|set| *set != Self::Accuracy)
                .any(|set| scores(set, category))
        };
        if !categories.iter().any(is_known) {
            return (!categories.is_empty()).then_some(Self::Accuracy);
        }
        let sets = [Self::EgoSchema, Self::MvBench, Self::RobotR1];
        sets.into_iter().find(|set| categories.iter().all(|category| scores(*set, category)))
    }

    /// The scored category for questions of `category`; `None` if they are not scored.
    pub fn scored_category(self, category: &str) -> Option<&str> {
        if self == Self::Accuracy {
            return Some(category_name(category));
        }
        let merged = if DIRECTION_LEVELS.contains(&category) { DIRECTION } else { category };
        self.categories().iter().copied().find(|&known| known == merged)
    }

    /// The scored categories that are in `found`, in table order; sorted under [`Self::Accuracy`].
    pub(crate) fn ordered<'a>(self, found: &BTreeSet<&'a str>) -> Vec<&'a str> {
        match self {
            Self::Accuracy => found.iter().copied().collect(),
            _ => self.categories().iter().filter_map(|name| found.get(name).copied()).collect(),
        }
    }

    /// The mean used as the overall score.
    pub fn overall(self) -> Mean {
        match self {
            Self::VsiBench => Mean::Macro,
            _ => Mean::Micro,
        }
    }

    /// How the levels of [`DIRECTION`] are combined.
    pub fn level_aggregation(self) -> LevelAggregation {
        match self {
            Self::VsiBench => LevelAggregation::Averaged,
            _ => LevelAggregation::Pooled,
        }
    }

    /// Number of questions in its categories in the full benchmark, or for Embodied-R in both full benchmarks; for
    /// EgoSchema, of those with published answers. `None` for Robot-R1, which has no published questions, and for
    /// [`Self::Accuracy`].
    pub fn benchmark_size(self) -> Option<usize> {
        Some(match self {
            Self::EmbodiedR => 5464,
            Self::VsiBench => 5130,
            Self::UrbanVideoBench => 5355,
            Self::EgoSchema => 500,
            Self::MvBench => 200,
            Self::RobotR1 | Self::Accuracy => return None,
        })
    }

    /// Whether questions without a prediction are skipped instead of counted as wrong.
    pub fn skips_missing(self) -> bool {
        self == Self::UrbanVideoBench
    }

    /// The score of one prediction, from 0 to 1. Missing and unparsable answers score 0.
    ///
    /// # Errors
    /// [`Error::Solution`] if the solution is not a letter or number as its category requires, or not of the question's
    /// type.
    pub fn score_prediction(self, prediction: &Prediction) -> Result<f64> {
        let Prediction { category, solution, output, .. } = prediction;
        let right = match self {
            Self::Accuracy => return accuracy(prediction),
            Self::EmbodiedR | Self::EgoSchema | Self::MvBench | Self::RobotR1 => {
                match Solution::parse(solution) {
                    Some(Solution::Letter(letter)) => output.option_letter() == Some(letter),
                    _ => return Err(wrong_solution(prediction, "an option letter")),
                }
            }
            Self::VsiBench if NUMERIC.contains(&category.as_str()) => {
                let target = match fuzzy::float(solution) {
                    Some(target) if target.is_finite() => target,
                    _ => return Err(wrong_solution(prediction, "a number")),
                };
                let number = output.answer().and_then(fuzzy::number);
                return Ok(number.map_or(0.0, |number| mean_relative_accuracy(number, target)));
            }
            _ if solution.trim().is_empty() => {
                return Err(wrong_solution(prediction, "an option letter"));
            }
            Self::VsiBench => output.answer().is_some_and(|text| fuzzy::matches(text, solution)),
            Self::UrbanVideoBench => {
                output.answer().and_then(option_line::option).as_deref() == Some(solution.as_str())
            }
        };
        Ok(if right { 1.0 } else { 0.0 })
    }
}

/// The accuracy reward of a prediction.
fn accuracy(prediction: &Prediction) -> Result<f64> {
    let Prediction { solution, answer_type, output, .. } = prediction;
    let completion = match output {
        PredictionOutput::Completion(text) => Cow::Borrowed(text.as_str()),
        PredictionOutput::Answer(text) => Cow::Owned(format!("<answer>{text}</answer>")),
        PredictionOutput::Missing | PredictionOutput::Unanswered => Cow::Borrowed(""),
    };
    let (completion, answer_type) = (completion.as_ref(), *answer_type);
    let input = RewardInput { solution, completion, answer_type, ..RewardInput::default() };
    let expected = match answer_type {
        Some(_) => "a reference answer of its `answer_type`",
        None => "an option letter or a number, as for questions without `answer_type`",
    };
    let scores = Accuracy.score(&[input])?;
    let value = scores.first().and_then(|score| score.value);
    value.ok_or_else(|| wrong_solution(prediction, expected))
}

fn wrong_solution(prediction: &Prediction, expected: &'static str) -> Error {
    Error::Solution {
        id: prediction.id.clone(),
        category: prediction.category.clone(),
        solution: prediction.solution.clone(),
        expected,
    }
}

#[cfg(test)]
mod tests;
