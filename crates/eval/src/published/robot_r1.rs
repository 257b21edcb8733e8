//! Robot-R1's multiple-choice questions.

use super::table::{PublishedRow, PublishedTable, cells, row};
use crate::protocol::ROBOT_R1;

pub(super) const TABLE: PublishedTable = PublishedTable {
    source: "Robot-R1 (arXiv 2506.00070) has no accuracies of its multiple-choice questions in numbers; chance is computed",
    caveat: "its results on other benchmarks are in the report of `robot bench`",
    categories: &ROBOT_R1,
    rows: &ROWS,
};

const ROWS: [PublishedRow; 1] = [row("Chance, one of four", 25.0, cells![25.0, 25.0, 25.0])];
