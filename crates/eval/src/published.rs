//! Published scores, to be set beside a report's.

mod embodied_r;
mod out_of_domain;
mod urbanvideo_bench;
mod vsi_bench;

use crate::protocol::Protocol;

/// Published rows of one protocol. All scores are from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Table {
    /// Where the rows come from.
    pub source: &'static str,
    /// What to know before comparing.
    pub caveat: &'static str,
    /// The categories that the rows give, in order, by their names in a report.
    pub categories: &'static [&'static str],
    /// The rows, in the source's order.
    pub rows: &'static [Row],
}

/// One published row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// The model or baseline, with the number of frames where the source gives it.
    pub model: &'static str,
    /// The overall score as printed.
    pub overall: Option<f64>,
    /// Scores in the order of [`Table::categories`]; empty where only the overall one is printed.
    pub scores: &'static [Option<f64>],
}

impl Row {
    /// The score in the category at `index` of the table.
    pub fn score(&self, index: usize) -> Option<f64> {
        self.scores.get(index).copied().flatten()
    }
}

/// The published rows of `protocol`.
pub fn table(protocol: Protocol) -> &'static Table {
    match protocol {
        Protocol::EmbodiedR => &embodied_r::TABLE,
        Protocol::VsiBench => &vsi_bench::TABLE,
        Protocol::UrbanVideoBench => &urbanvideo_bench::TABLE,
        Protocol::EgoSchema => &out_of_domain::EGOSCHEMA,
        Protocol::MvBench => &out_of_domain::MVBENCH,
    }
}

/// A row with a score in every category.
const fn row(model: &'static str, overall: f64, scores: &'static [Option<f64>]) -> Row {
    Row { model, overall: Some(overall), scores }
}

/// A row of which only the overall score is printed.
const fn overall(model: &'static str, overall: f64) -> Row {
    Row { model, overall: Some(overall), scores: &[] }
}

/// The cells of a row.
macro_rules! cells {
    ($($score:literal),* $(,)?) => { &[$(Some($score)),*] };
}
use cells;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_fits_its_table() {
        for protocol in Protocol::ALL {
            let table = table(protocol);
            assert!(!table.rows.is_empty());
            for row in table.rows {
                let cells = row.scores.len();
                assert!(cells == 0 || cells == table.categories.len(), "{}", row.model);
                assert!(
                    row.overall
                        .iter()
                        .chain(row.scores.iter().flatten())
                        .all(|s| (0.0..=100.0).contains(s)),
                    "{}",
                    row.model
                );
            }
        }
    }

    #[test]
    fn every_column_is_a_category_of_the_protocol() {
        for protocol in Protocol::ALL {
            for name in table(protocol).categories {
                assert!(protocol.categories().contains(name), "{name}");
            }
        }
    }

    /// Numbers of questions in the full sets, in the order of the table's columns.
    const COUNTS: [f64; 8] = [876.0, 134.0, 781.0, 1183.0, 710.0, 968.0, 194.0, 618.0];

    #[test]
    fn untrained_rows_of_embodied_r_average_to_what_is_printed() {
        let recomputed = |row: &Row| {
            let sum: f64 = (0..8).map(|i| COUNTS[i] * row.score(i).unwrap()).sum();
            sum / COUNTS.iter().sum::<f64>()
        };
        // These six were scored on another mix of questions, as the caveat says.
        let other_mix = ["OpenAI-o1", "Gemini-2.5-Pro", "SFT", "Embodied-R", "without"];
        for row in table(Protocol::EmbodiedR).rows {
            if other_mix.iter().any(|part| row.model.contains(part)) {
                continue;
            }
            let difference = (recomputed(row) - row.overall.unwrap()).abs();
            assert!(difference <= 0.11, "{}: {}", row.model, recomputed(row));
        }
    }

    #[test]
    fn full_rows_of_vsi_bench_average_to_what_is_printed() {
        for row in table(Protocol::VsiBench).rows {
            let scores: Vec<f64> = row.scores.iter().flatten().copied().collect();
            let (8, Some(overall)) = (scores.len(), row.overall) else {
                continue;
            };
            // The paper prints 34.0 over columns that average to 35.5.
            let printed = if row.model == "Chance, most frequent" { 35.5 } else { overall };
            let mean = scores.iter().sum::<f64>() / 8.0;
            assert!((mean - printed).abs() <= 0.11, "{}: {mean}", row.model);
        }
    }
}
