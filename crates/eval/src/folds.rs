//! Cross-validation: the mean and the standard deviation of scores over folds.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::report::{CategoryScore, Coverage, PassAt, Report};

/// The scores of all folds of a cross-validation, and their mean.
///
/// Its JSON has the fields of a [`Report`] with the means, then `"std"` and `"folds"`:
/// `{"protocol", "n", "overall", …, "std": {"overall", "micro", "macro", "by_category": {name: std},
/// "pass_at"?}, "folds": [report]}`. `n` counts the questions of all folds.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedReport {
    /// The means over folds. A category's mean is over the folds that have it; counts and coverage are sums.
    pub mean: Report,
    /// The standard deviations over folds.
    pub std: Spread,
    /// The report of each fold, at least two.
    pub folds: Vec<Report>,
}

/// Sample standard deviations (with the divisor n - 1) of scores over folds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Of the overall scores.
    pub overall: f64,
    /// Of the means over questions.
    pub micro: f64,
    /// Of the means over categories.
    #[serde(rename = "macro")]
    pub macro_: f64,
    /// By category; `None` if fewer than two folds have it.
    pub by_category: BTreeMap<String, Option<f64>>,
    /// Of pass@k by k; empty without samples.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pass_at: BTreeMap<usize, f64>,
}

impl FoldedReport {
    /// The means and standard deviations of `folds`.
    ///
    /// # Errors
    /// [`Error::TooFewFolds`] for fewer than two folds; [`Error::FoldMismatch`] if they differ in their protocol, their
    /// number of samples per question, or the k of pass@k.
    pub fn new(folds: Vec<Report>) -> Result<Self> {
        let [first, _, ..] = folds.as_slice() else {
            return Err(Error::TooFewFolds { found: folds.len() });
        };
        check_equal(&folds, "protocol", |fold| fold.protocol.benchmark.name.to_owned())?;
        check_equal(&folds, "number of samples per question", |fold| {
            fold.pass_at.as_ref().map_or(1, |of| of.samples).to_string()
        })?;
        check_equal(&folds, "k of pass@k", |fold| {
            let ks = fold.pass_at.iter().flat_map(|of| of.overall.keys());
            ks.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        })?;
        let [overall, micro, macro_] =
            [|fold: &Report| fold.overall, |fold: &Report| fold.micro, |fold: &Report| fold.macro_]
                .map(|score| folds.iter().map(score).collect::<Vec<f64>>());
        let found = folds.iter().flat_map(|fold| &fold.by_category);
        let found: BTreeSet<&str> = found.map(|category| category.name.as_str()).collect();
        let of_category =
            |name| (name, folds.iter().filter_map(|fold| fold.category(name)).collect());
        let categories: Vec<(&str, Vec<&CategoryScore>)> =
            first.protocol.benchmark.ordered(&found).into_iter().map(of_category).collect();
        let by_category = categories.iter().map(|(name, folds)| CategoryScore {
            name: (*name).to_owned(),
            score: mean(&scores(folds)),
            n: folds.iter().map(|fold| fold.n).sum(),
            pass_at: mean_by_k(folds.iter().map(|fold| &fold.pass_at)),
        });
        let pass_at = first.pass_at.as_ref().map(|of| PassAt {
            overall: mean_by_k(folds.iter().flat_map(|fold| &fold.pass_at).map(|of| &of.overall)),
            samples: of.samples,
            temperature: of.temperature,
        });
        let std = Spread {
            overall: std(&overall).unwrap_or_default(),
            micro: std(&micro).unwrap_or_default(),
            macro_: std(&macro_).unwrap_or_default(),
            by_category: categories
                .iter()
                .map(|(name, folds)| ((*name).to_owned(), std(&scores(folds))))
                .collect(),
            pass_at: by_k(folds.iter().flat_map(|fold| &fold.pass_at).map(|of| &of.overall))
                .into_iter()
                .filter_map(|(k, scores)| Some((k, std(&scores)?)))
                .collect(),
        };
        let mean = Report {
            protocol: first.protocol,
            n: folds.iter().map(|fold| fold.n).sum(),
            overall: mean(&overall),
            micro: mean(&micro),
            macro_: mean(&macro_),
            by_category: by_category.collect(),
            questions: Vec::new(),
            pass_at,
            coverage: coverage(&folds),
            context: first.context.clone(),
        };
        Ok(Self { mean, std, folds })
    }

    /// The coverage of all folds as messages, and the categories that only some folds have.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.mean.warnings();
        for CategoryScore { name, .. } in &self.mean.by_category {
            let with = self.folds.iter().filter(|fold| fold.category(name).is_some()).count();
            if with < self.folds.len() {
                let all = self.folds.len();
                warnings.push(format!(
                    "the mean of {name} is over the {with} of {all} folds that have it"
                ));
            }
        }
        warnings
    }
}

fn check_equal(folds: &[Report], what: &'static str, of: impl Fn(&Report) -> String) -> Result<()> {
    let values: Vec<String> = folds.iter().map(of).collect();
    match values.iter().position(|value| *value != values[0]) {
        None => Ok(()),
        Some(fold) => {
            let (first, other) = (values[0].clone(), values[fold].clone());
            Err(Error::FoldMismatch { what, first, fold, other })
        }
    }
}

fn scores(folds: &[&CategoryScore]) -> Vec<f64> {
    folds.iter().map(|category| category.score).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation; `None` for fewer than two values.
fn std(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

fn by_k<'a>(folds: impl Iterator<Item = &'a BTreeMap<usize, f64>>) -> BTreeMap<usize, Vec<f64>> {
    let mut all: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (&k, &score) in folds.flatten() {
        all.entry(k).or_default().push(score);
    }
    all
}

fn mean_by_k<'a>(folds: impl Iterator<Item = &'a BTreeMap<usize, f64>>) -> BTreeMap<usize, f64> {
    by_k(folds).into_iter().map(|(k, scores)| (k, mean(&scores))).collect()
}

fn coverage(folds: &[Report]) -> Coverage {
    let mut all = Coverage::default();
    for Report { coverage, .. } in folds {
        all.missing += coverage.missing;
        all.unanswered += coverage.unanswered;
        all.unparsed += coverage.unparsed;
        all.without_answer_tag += coverage.without_answer_tag;
        all.unscored_answers.extend(coverage.unscored_answers.iter().cloned());
        for (category, count) in &coverage.unscored_categories {
            *all.unscored_categories.entry(category.clone()).or_default() += count;
        }
    }
    let known = folds.first().map_or(&[][..], |fold| fold.protocol.benchmark.category_names());
    let is_empty = |name: &&'static str| folds.iter().all(|fold| fold.category(name).is_none());
    all.empty_categories = known.iter().copied().filter(is_empty).collect();
    all
}

impl Serialize for FoldedReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.mean.serialize_entries(&mut map)?;
        map.serialize_entry("std", &self.std)?;
        map.serialize_entry("folds", &self.folds)?;
        map.end()
    }
}

#[cfg(test)]
mod tests;
