//! Embodied-R's out-of-domain benchmarks: EgoSchema and MVBench's egocentric navigation.

use super::table::{PublishedRow, PublishedTable, cells, row};

const SOURCE: &str =
    "Embodied-R (arXiv 2504.12680), the figure on its project page; chance is computed";

pub(super) const EGOSCHEMA: PublishedTable = PublishedTable {
    source: SOURCE,
    caveat: "over the 500 questions with published answers; values are read off a bar chart to \
             about a point, that of Embodied-R is between 69 and 70",
    categories: &[embodied_r_data::egoschema::CATEGORY],
    rows: &EGOSCHEMA_ROWS,
};

pub(super) const MVBENCH: PublishedTable = PublishedTable {
    source: SOURCE,
    caveat: "over the 200 questions of the task; values are read off a bar chart to about a point",
    categories: &[embodied_r_data::mvbench::CATEGORY],
    rows: &MVBENCH_ROWS,
};

const EGOSCHEMA_ROWS: [PublishedRow; 5] = [
    row("Chance, one of five", 20.0, cells![20.0]),
    row("Embodied-R before training", 55.0, cells![55.0]),
    row("Embodied-R after SFT", 65.0, cells![65.0]),
    row("Embodied-R after RL", 69.0, cells![69.0]),
    row("Gemini-2.5-Pro", 67.0, cells![67.0]),
];

const MVBENCH_ROWS: [PublishedRow; 5] = [
    row("Chance, one of four", 25.0, cells![25.0]),
    row("Embodied-R before training", 36.0, cells![36.0]),
    row("Embodied-R after SFT", 31.0, cells![31.0]),
    row("Embodied-R after RL", 40.0, cells![40.0]),
    row("Gemini-2.5-Pro", 50.0, cells![50.0]),
];
