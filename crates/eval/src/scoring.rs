//! Scores predictions into a report.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::predictions::{Prediction, PredictionOutput};
use crate::protocol::{LevelAggregation, Mean, Protocol};
use crate::report::{CategoryScore, Coverage, Report};

/// A sum of scores from 0 to 1 and their count.
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

/// Scores `predictions` by `protocol`. The [crate's table](crate#what-counts) defines how missing
/// and unparsable predictions and other categories count.
///
/// # Errors
/// A solution is of the wrong kind for its category, or nothing can be scored. [`Protocol::Accuracy`] leaves such questions
/// out.
pub fn score(protocol: Protocol, predictions: &[Prediction]) -> Result<Report> {
    let mut coverage = Coverage::default();
    // Levels are tallied separately and combined at the end.
    let mut tallies: BTreeMap<&str, BTreeMap<&str, Tally>> = BTreeMap::new();
    // Of the first question that the accuracy reward cannot score.
    let mut unscored = None;
    for prediction in predictions {
        let level = prediction.category.as_str();
        let Some(category) = protocol.scored_category(level) else {
            *coverage.unscored_categories.entry(level.to_owned()).or_default() += 1;
            continue;
        };
        let score = match protocol.score_prediction(prediction) {
            Err(error @ Error::Solution { .. }) if protocol == Protocol::Accuracy => {
                coverage.unscored_answers.insert(prediction.id.clone());
                unscored.get_or_insert(error);
                continue;
            }
            score => score?,
        };
        match &prediction.output {
            PredictionOutput::Missing => coverage.missing += 1,
            PredictionOutput::Unanswered => coverage.unanswered += 1,
            PredictionOutput::Completion(_) if prediction.output.answer().is_none() => {
                coverage.without_answer_tag += 1
            }
            _ => {}
        }
        if prediction.output == PredictionOutput::Missing && protocol.skips_missing() {
            continue;
        }
        tallies.entry(category).or_default().entry(level).or_default().add(score);
    }

    let known = protocol.categories().iter();
    coverage.empty_categories =
        known.copied().filter(|&name| !tallies.contains_key(name)).collect();
    let by_category: Vec<CategoryScore> = protocol
        .ordered(&tallies.keys().copied().collect())
        .into_iter()
        .filter_map(|name| Some(merged(name, protocol.level_aggregation(), tallies.get(name)?)))
        .collect();
    if by_category.is_empty() && coverage.missing > 0 {
        return Err(Error::NoPredictions { records: predictions.len() });
    }
    if by_category.is_empty() {
        return Err(unscored.unwrap_or_else(|| Error::NothingToScore {
            protocol: protocol.name(),
            found: coverage.unscored_categories.into_keys().collect(),
        }));
    }

    let all = pooled(tallies.values().flat_map(BTreeMap::values));
    let macro_ =
        by_category.iter().map(|category| category.score).sum::<f64>() / by_category.len() as f64;
    let micro = all.percent();
    let overall = match protocol.overall() {
        Mean::Micro => micro,
        Mean::Macro => macro_,
    };
    Ok(Report { protocol, n: all.n, overall, micro, macro_, by_category, pass_at: None, coverage })
}

fn merged(
    name: &str,
    level_aggregation: LevelAggregation,
    tallies: &BTreeMap<&str, Tally>,
) -> CategoryScore {
    let all = pooled(tallies.values());
    let score = match level_aggregation {
        LevelAggregation::Pooled => all.percent(),
        LevelAggregation::Averaged => {
            tallies.values().map(|tally| tally.percent()).sum::<f64>() / tallies.len() as f64
        }
    };
    CategoryScore { name: name.to_owned(), score, n: all.n, pass_at: BTreeMap::new() }
}

fn pooled<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Tally {
    tallies
        .fold(Tally::default(), |all, tally| Tally { sum: all.sum + tally.sum, n: all.n + tally.n })
}

#[cfg(test)]
mod tests;
