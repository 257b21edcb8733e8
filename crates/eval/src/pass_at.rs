//! pass@k: the probability that at least one of k samples is correct.
//!
//! ```
//! use embodied_r_eval::pass_at;
//!
//! // Three of ten samples are correct: 1 - C(7, 5) / C(10, 5).
//! assert!((pass_at(10, 3, 5)? - 11.0 / 12.0).abs() < 1e-12);
//! # Ok::<(), embodied_r_eval::Error>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::protocol::Protocol;
use crate::report::{PassAt, Report};
use crate::samples::SampledQuestion;
use crate::scoring::score;

/// The unbiased estimate of pass@k from `n` samples of which `c` are correct, from 0 to 1:
/// `1 - C(n - c, k) / C(n, k)`, as a product of `k`-dependent factors (Chen et al. 2021, "Evaluating
/// Large Language Models Trained on Code", arXiv 2107.03374, eq. 1 and figure 3).
///
/// # Errors
/// [`Error::TooFewSamples`] if `k > n`, and [`Error::CorrectSamples`] if `c > n`.
pub fn pass_at(n: usize, c: usize, k: usize) -> Result<f64> {
    if k > n {
        return Err(Error::TooFewSamples { n, k });
    }
    let Some(wrong) = n.checked_sub(c) else {
        return Err(Error::CorrectSamples { n, c });
    };
    if wrong < k {
        return Ok(1.0);
    }
    let all_wrong: f64 = (wrong + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Ok(1.0 - all_wrong)
}

/// Scores several samples per question by `protocol`. The report's scores are means over samples; its
/// [`PassAt`] has pass@k for every k of `ks`, where a sample is correct at a score of 1: the right
/// option, or for numeric questions a mean relative accuracy of 1, an error of at most 5 %.
///
/// `temperature` is that of sampling, if known.
///
/// # Errors
/// A question has fewer samples than the largest k, or another number than the others (none is unanswered, which counts
/// as wrong); or as [`score`].
pub fn score_samples(
    protocol: Protocol,
    questions: &[SampledQuestion],
    ks: &[usize],
    temperature: Option<f64>,
) -> Result<Report> {
    let ks: BTreeSet<usize> = ks.iter().copied().collect();
    let samples = samples_per_question(questions)?;
    if let Some(&k) = ks.iter().find(|k| **k > samples) {
        return Err(Error::TooFewSamples { n: samples, k });
    }
    let predictions: Vec<_> =
        questions.iter().flat_map(|question| question.predictions(samples)).collect();
    let mut report = score(protocol, &predictions)?;
    // With equally many samples per question, means over all samples are means over questions.
    report.n /= samples;
    report.questions.clear();
    report.by_category.iter_mut().for_each(|category| category.n /= samples);
    report.coverage.unscored_categories.values_mut().for_each(|count| *count /= samples);
    report.coverage.unanswered /= samples;

    let mut by_category: BTreeMap<&str, Mean> = BTreeMap::new();
    let is_scored = |it: &&SampledQuestion| !report.coverage.unscored_answers.contains(&it.id);
    for question in questions.iter().filter(is_scored) {
        let Some(category) = protocol.benchmark.scored_category(&question.category) else {
            continue;
        };
        let mut correct = 0;
        for prediction in question.predictions(samples) {
            correct += usize::from(protocol.score_prediction(&prediction)?.score == 1.0);
        }
        by_category.entry(category).or_default().add(samples, correct, &ks)?;
    }
    for category in &mut report.by_category {
        category.pass_at =
            by_category.get(category.name.as_str()).map(Mean::percent).unwrap_or_default();
    }
    let overall = by_category.into_values().fold(Mean::default(), Mean::pooled).percent();
    report.pass_at = Some(PassAt { overall, samples, temperature });
    Ok(report)
}

fn samples_per_question(questions: &[SampledQuestion]) -> Result<usize> {
    let mut answered = questions.iter().filter(|question| !question.samples.is_empty());
    let Some(expected) = answered.next().map(|question| question.samples.len()) else {
        return Err(Error::NoPredictions { records: questions.len() });
    };
    match answered.find(|question| question.samples.len() != expected) {
        Some(other) => {
            let (id, found) = (other.id.clone(), other.samples.len());
            Err(Error::SampleCount { id, found, expected })
        }
        None => Ok(expected),
    }
}

/// Sums of pass@k over questions.
#[derive(Default)]
struct Mean {
    sums: BTreeMap<usize, f64>,
    questions: usize,
}

impl Mean {
    fn add(&mut self, samples: usize, correct: usize, ks: &BTreeSet<usize>) -> Result<()> {
        for &k in ks {
            *self.sums.entry(k).or_default() += pass_at(samples, correct, k)?;
        }
        self.questions += 1;
        Ok(())
    }

    fn pooled(mut self, other: Self) -> Self {
        for (k, sum) in other.sums {
            *self.sums.entry(k).or_default() += sum;
        }
        self.questions += other.questions;
        self
    }

    fn percent(&self) -> BTreeMap<usize, f64> {
        self.sums.iter().map(|(&k, sum)| (k, 100.0 * sum / self.questions as f64)).collect()
    }
}

#[cfg(test)]
mod tests;
