//! From predictions to a report.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::predictions::{Output, Prediction};
use crate::protocol::{Levels, Mean, Protocol};
use crate::report::{Category, Notes, Report};

/// A sum of scores from 0 to 1, and how many they are.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    sum: f64,
    n: usize,
}

impl Tally {
    fn add(&mut self, score: f64) {
        self.sum += score;
        self.n += 1;
    }

    fn percent(self) -> f64 {
        100.0 * self.sum / self.n as f64
    }
}

/// Scores `predictions` by `protocol`. What is missing, unreadable or of another benchmark's
/// category counts as the [crate's table](crate#what-counts) says.
///
/// # Errors
/// A solution is not of its category's kind, or no prediction counts.
pub fn score(protocol: Protocol, predictions: &[Prediction]) -> Result<Report> {
    let mut notes = Notes::default();
    // Levels are kept apart under their own names until the end.
    let mut tallies: BTreeMap<&str, BTreeMap<&str, Tally>> = BTreeMap::new();
    for prediction in predictions {
        let level = prediction.category.as_str();
        let Some(category) = protocol.counted_under(level) else {
            *notes.unknown.entry(level.to_owned()).or_default() += 1;
            continue;
        };
        let score = protocol.score_one(prediction)?;
        match &prediction.output {
            Output::Missing => notes.missing += 1,
            Output::Completion(_) if prediction.output.answer().is_none() => notes.untagged += 1,
            _ => {}
        }
        if prediction.output == Output::Missing && protocol.leaves_out_missing() {
            continue;
        }
        tallies.entry(category).or_default().entry(level).or_default().add(score);
    }

    let known = protocol.categories().iter();
    notes.absent = known.copied().filter(|&name| !tallies.contains_key(name)).collect();
    let by_category: Vec<Category> = protocol
        .categories()
        .iter()
        .filter_map(|&name| Some(merged(name, protocol.levels(), tallies.get(name)?)))
        .collect();
    if by_category.is_empty() && notes.missing > 0 {
        return Err(Error::NoPredictions { records: predictions.len() });
    }
    if by_category.is_empty() {
        return Err(Error::NothingToScore {
            protocol: protocol.name(),
            found: notes.unknown.into_keys().collect(),
        });
    }

    let all = pooled(tallies.values().flat_map(BTreeMap::values));
    let macro_ =
        by_category.iter().map(|category| category.score).sum::<f64>() / by_category.len() as f64;
    let micro = all.percent();
    let overall = match protocol.overall() {
        Mean::Micro => micro,
        Mean::Macro => macro_,
    };
    Ok(Report { protocol, n: all.n, overall, micro, macro_, by_category, notes })
}

fn merged(name: &'static str, levels: Levels, tallies: &BTreeMap<&str, Tally>) -> Category {
    let all = pooled(tallies.values());
    let score = match levels {
        Levels::Pooled => all.percent(),
        Levels::Averaged => {
            tallies.values().map(|tally| tally.percent()).sum::<f64>() / tallies.len() as f64
        }
    };
    Category { name, score, n: all.n }
}

fn pooled<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Tally {
    tallies
        .fold(Tally::default(), |all, tally| Tally { sum: all.sum + tally.sum, n: all.n + tally.n })
}

#[cfg(test)]
mod tests;
