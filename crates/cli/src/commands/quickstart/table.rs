//! The quickstart's results: a table, and `results.json`.

use std::fmt::Write as _;

use serde::Serialize;

use super::row::Row;

/// The content of `results.json`.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    /// `--seed`.
    pub(super) seed: u64,
    /// Duration of the command.
    pub(super) seconds: f64,
    /// One row for each model or control.
    pub(super) rows: Vec<Row>,
}

/// A Markdown table with one row per model, in per cent.
pub(super) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| rooms never seen | n | accuracy | parsable | of parsable | reasons | sound@1 | sound@8 | tokens \
         | supervised examples |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    );
    for row in rows {
        let _ = write!(
            text,
            "\n| {} | {} | {:.1} ± {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {} |",
            row.name,
            row.n,
            row.accuracy,
            row.stderr,
            row.parsable,
            row.accuracy_of_parsable,
            row.reasons,
            row.sound_at_1,
            row.sound_at_8,
            row.tokens,
            row.supervised_examples,
        );
    }
    text.push('\n');
    text
}
