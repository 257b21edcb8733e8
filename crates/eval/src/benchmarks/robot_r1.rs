//! Robot-R1's multiple-choice questions, made from demonstrations.

use super::letter;
use crate::benchmark::{Benchmark, Categories, Detection, InvalidSolution, Missing};

/// Robot-R1's three kinds of multiple-choice questions; overall is the mean over questions. No accuracies are published.
pub(super) static ROBOT_R1: Benchmark = Benchmark {
    name: "robot-r1",
    title: "Robot-R1: multiple-choice questions by `kind` (`waypoint`, `state`, `movement`), mean over questions",
    // The next key point, the current state, and the movement between them.
    categories: Categories::listed(&["waypoint", "state", "movement"]),
    detection: Detection::Alone,
    size: None,
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: letter::SCORER,
    other_scorers: &[],
    layout: None,
    published: None,
};
