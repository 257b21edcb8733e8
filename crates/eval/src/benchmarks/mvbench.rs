//! MVBench's egocentric navigation, out of domain for Embodied-R.

use super::letter;
use crate::benchmark::{Benchmark, Categories, Detection, InvalidSolution, Missing};
use crate::published::{PublishedRow, PublishedTable, cells, row};

/// MVBench's egocentric navigation task; overall is the mean over questions.
pub(super) static MVBENCH: Benchmark = Benchmark {
    name: "mvbench",
    title: "MVBench: 200 questions of egocentric navigation",
    categories: Categories::listed(&CATEGORIES),
    detection: Detection::Alone,
    size: Some(200),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: letter::SCORER,
    other_scorers: &[],
    layout: None,
    published: Some(&TABLE),
};

const CATEGORIES: [&str; 1] = [embodied_r_data::mvbench::CATEGORY];

static TABLE: PublishedTable = PublishedTable {
    source: "Embodied-R (arXiv 2504.12680), the figure on its project page; chance is computed",
    caveat: "over the 200 questions of the task; values are read off a bar chart to about a point",
    categories: &CATEGORIES,
    rows: &ROWS,
};

const ROWS: [PublishedRow; 5] = [
    row("Chance, one of four", 25.0, cells![25.0]),
    row("Embodied-R before training", 36.0, cells![36.0]),
    row("Embodied-R after SFT", 31.0, cells![31.0]),
    row("Embodied-R after RL", 40.0, cells![40.0]),
    row("Gemini-2.5-Pro", 50.0, cells![50.0]),
];
