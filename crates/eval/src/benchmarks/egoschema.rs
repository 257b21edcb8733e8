//! EgoSchema, out of domain for Embodied-R.

use super::letter;
use crate::benchmark::{Benchmark, Categories, Detection, InvalidSolution, Missing};
use crate::published::{PublishedRow, PublishedTable, cells, row};

/// EgoSchema's questions with published answers; overall is the mean over questions.
pub(super) static EGOSCHEMA: Benchmark = Benchmark {
    name: "egoschema",
    title: "EgoSchema: the 500 questions with published answers",
    categories: Categories::listed(&CATEGORIES),
    detection: Detection::Alone,
    size: Some(500),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: letter::SCORER,
    other_scorers: &[],
    layout: None,
    published: Some(&TABLE),
};

const CATEGORIES: [&str; 1] = [embodied_r_data::egoschema::CATEGORY];

static TABLE: PublishedTable = PublishedTable {
    source: "Embodied-R (arXiv 2504.12680), the figure on its project page; chance is computed",
    caveat: "over the 500 questions with published answers; values are read off a bar chart to \
             about a point, that of Embodied-R is between 69 and 70",
    categories: &CATEGORIES,
    rows: &ROWS,
};

const ROWS: [PublishedRow; 5] = [
    row("Chance, one of five", 20.0, cells![20.0]),
    row("Embodied-R before training", 55.0, cells![55.0]),
    row("Embodied-R after SFT", 65.0, cells![65.0]),
    row("Embodied-R after RL", 69.0, cells![69.0]),
    row("Gemini-2.5-Pro", 67.0, cells![67.0]),
];
