//! The form of published results.

/// Published results for one protocol. All scores are from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedTable {
    /// The source of the results.
    pub source: &'static str,
    /// Limits of the comparison.
    pub caveat: &'static str,
    /// The table's categories in order, named as in a report.
    pub categories: &'static [&'static str],
    /// The rows, in the source's order.
    pub rows: &'static [PublishedRow],
}

/// One published row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedRow {
    /// The model or baseline, with its number of frames if published.
    pub model: &'static str,
    /// The overall score as published.
    pub overall: Option<f64>,
    /// Scores in the order of [`PublishedTable::categories`]; empty if only the overall score is
    /// published.
    pub scores: &'static [Option<f64>],
}

impl PublishedRow {
    /// The score in the table's category `index`.
    pub fn score(&self, index: usize) -> Option<f64> {
        self.scores.get(index).copied().flatten()
    }
}

/// A row with a score in every category.
pub(super) const fn row(
    model: &'static str,
    overall: f64,
    scores: &'static [Option<f64>],
) -> PublishedRow {
    PublishedRow { model, overall: Some(overall), scores }
}

/// A row with only an overall score.
pub(super) const fn overall(model: &'static str, overall: f64) -> PublishedRow {
    PublishedRow { model, overall: Some(overall), scores: &[] }
}

/// The cells of a row.
macro_rules! cells {
    ($($score:literal),* $(,)?) => { &[$(Some($score)),*] };
}
pub(super) use cells;
