//! Scores predictions into a report.

use std::collections::BTreeMap;

use crate::benchmark::{InvalidSolution, LevelAggregation, Mean, Missing, Scored};
use crate::error::{Error, Result};
use crate::predictions::{Prediction, PredictionOutput};
use crate::protocol::Protocol;
use crate::report::{CategoryScore, Context, Coverage, QuestionScore, Report};

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
        match self.n {
            0 => 0.0,
            n => 100.0 * self.sum / n as f64,
        }
    }
}

/// Scores `predictions` by `protocol`. The [crate's table](crate#what-counts) defines how missing
/// and unparsable predictions and other categories count.
///
/// # Errors
/// A solution is of the wrong kind for its category, unless the benchmark skips such questions; or nothing can be scored.
pub fn score(protocol: Protocol, predictions: &[Prediction]) -> Result<Report> {
    let Protocol { benchmark, scorer } = protocol;
    let mut coverage = Coverage::default();
    // Levels are tallied separately and combined at the end.
    let mut tallies: BTreeMap<&str, BTreeMap<&str, Tally>> = BTreeMap::new();
    // Of the first question that the accuracy reward cannot score.
    let mut unscored = None;
    let mut questions = Vec::with_capacity(predictions.len());
    let mut groups: BTreeMap<String, bool> = BTreeMap::new();
    for prediction in predictions {
        let level = prediction.category.as_str();
        let Some(category) = benchmark.scored_category(level) else {
            *coverage.unscored_categories.entry(level.to_owned()).or_default() += 1;
            continue;
        };
        let scored = match protocol.score_prediction(prediction) {
            Err(error @ Error::Solution { .. })
                if benchmark.invalid_solution == InvalidSolution::Skipped =>
            {
                coverage.unscored_answers.insert(prediction.id.clone());
                unscored.get_or_insert(error);
                continue;
            }
            scored => scored?,
        };
        match &prediction.output {
            PredictionOutput::Missing => coverage.missing += 1,
            PredictionOutput::Unanswered => coverage.unanswered += 1,
            PredictionOutput::Completion(_) if prediction.output.answer().is_none() => {
                coverage.without_answer_tag += 1
            }
            _ => {}
        }
        if prediction.output == PredictionOutput::Missing && benchmark.missing == Missing::Skipped {
            continue;
        }
        let Scored { extracted, score } = scored;
        if extracted.is_none() && prediction.output.is_given() {
            coverage.unparsed += 1;
        }
        if let Some(group) = scorer.group {
            *groups.entry(group(prediction)).or_insert(true) &= score == 1.0;
        }
        questions.push(QuestionScore { id: prediction.id.clone(), extracted, score });
        tallies.entry(category).or_default().entry(level).or_default().add(score);
    }

    let known = benchmark.category_names().iter();
    coverage.empty_categories =
        known.copied().filter(|&name| !tallies.contains_key(name)).collect();
    let by_category: Vec<CategoryScore> = benchmark
        .ordered(&tallies.keys().copied().collect())
        .into_iter()
        .filter_map(|name| Some(merged(name, scorer.level_aggregation, tallies.get(name)?)))
        .collect();
    if by_category.is_empty() && coverage.missing > 0 {
        return Err(Error::NoPredictions { records: predictions.len() });
    }
    if by_category.is_empty() {
        return Err(unscored.unwrap_or_else(|| Error::NothingToScore {
            protocol: benchmark.name,
            found: coverage.unscored_categories.into_keys().collect(),
        }));
    }

    let all = pooled(tallies.values().flat_map(BTreeMap::values));
    let is_counted = |name: &str| !scorer.uncounted.contains(&name);
    let counted = tallies.iter().filter(|(name, _)| is_counted(name));
    let micro = pooled(counted.flat_map(|(_, levels)| levels.values())).percent();
    let counted = by_category.iter().filter(|category| is_counted(&category.name));
    let macro_ =
        counted.clone().map(|category| category.score).sum::<f64>() / counted.count().max(1) as f64;
    let overall = match scorer.overall {
        Mean::Micro => micro,
        Mean::Macro => macro_,
        Mean::Groups => {
            let right = groups.values().filter(|is_right| **is_right).count();
            100.0 * right as f64 / groups.len() as f64
        }
    };
    Ok(Report {
        protocol,
        n: all.n,
        overall,
        micro,
        macro_,
        by_category,
        questions,
        pass_at: None,
        coverage,
        context: Context::default(),
    })
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
