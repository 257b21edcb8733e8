//! Mean scores by type and split, with bootstrap intervals, and the agreement of two judges.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use embodied_r_random::Rng;
use serde::Serialize;

use super::published::{PublishedRow, ROWS};
use super::question::{BenchQuestion, QuestionType};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;

/// The name of the mean over all splits.
const ALL: &str = "all";

/// Names of the split with the tasks of the training, and of that with others.
const SEEN: [&str; 2] = ["in", "seen"];
const UNSEEN: [&str; 2] = ["out", "held-out"];

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// The mean of scores from 0 to 3.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeanScore {
    /// The number of scores.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// The interval of the mean over resampled questions.
    pub interval: Interval,
}

/// How far two judges agree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Questions that both have scored.
    pub n: usize,
    /// The share with equal scores.
    pub equal: f64,
    /// The share with scores at most 1 apart.
    pub within_1: f64,
    /// The correlation of the scores (Pearson); `None` if those of a judge are all equal.
    pub correlation: Option<f64>,
}

/// The scores of a judge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// By type, then by split with `all` for all splits.
    pub by_type: BTreeMap<&'static str, BTreeMap<String, MeanScore>>,
    /// Questions without a score.
    pub unscored: usize,
}

impl MeanScore {
    /// The mean of `scores` with a percentile bootstrap of 10,000 resamples that `seed` determines; `None` without
    /// scores.
    pub fn new(scores: &[u8], seed: u64) -> Option<Self> {
        let mean = |sum: u64| sum as f64 / scores.len() as f64;
        if scores.is_empty() {
            return None;
        }
        let mut rng = Rng::new(&[seed, scores.len() as u64]);
        let mut means: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                mean((0..scores.len()).map(|_| u64::from(scores[rng.below(scores.len())])).sum())
            })
            .collect();
        means.sort_by(f64::total_cmp);
        let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
        Some(Self {
            n: scores.len(),
            mean: mean(scores.iter().map(|score| u64::from(*score)).sum()),
            interval: Interval { low: at(0.025), high: at(0.975) },
        })
    }
}

impl Agreement {
    /// The agreement of scores of the same questions; `None` if no question has both.
    pub fn new(a: &[Option<u8>], b: &[Option<u8>]) -> Option<Self> {
        let pairs: Vec<(f64, f64)> = a
            .iter()
            .zip(b)
            .filter_map(|(a, b)| Some((f64::from((*a)?), f64::from((*b)?))))
            .collect();
        if pairs.is_empty() {
            return None;
        }
        let n = pairs.len() as f64;
        let share =
            |apart: f64| pairs.iter().filter(|(a, b)| (a - b).abs() <= apart).count() as f64 / n;
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
        let (mean_a, mean_b) = (mean(|it| it.0), mean(|it| it.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| {
            pairs.iter().map(|(a, b)| of(a - mean_a, b - mean_b)).sum::<f64>()
        };
        let scale = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
        Some(Self {
            n: pairs.len(),
            equal: share(0.0),
            within_1: share(1.0),
            correlation: (scale > 0.0).then(|| sum(&|a, b| a * b) / scale),
        })
    }
}

impl Summary {
    /// The means of `scores`, one per question; `None` is no score.
    pub fn new(questions: &[BenchQuestion], scores: &[Option<u8>], seed: u64) -> Self {
        let mut grouped: BTreeMap<&'static str, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
        for (question, score) in questions.iter().zip(scores) {
            let Some(score) = score else { continue };
            let of_type = grouped.entry(question.kind.name()).or_default();
            for split in [question.split.as_str(), ALL] {
                of_type.entry(split.to_owned()).or_default().push(*score);
            }
        }
        let means = |splits: BTreeMap<String, Vec<u8>>| {
            let mean =
                |(split, scores): (String, Vec<u8>)| Some((split, MeanScore::new(&scores, seed)?));
            splits.into_iter().filter_map(mean).collect()
        };
        Self {
            by_type: grouped.into_iter().map(|(kind, splits)| (kind, means(splits))).collect(),
            unscored: scores.iter().filter(|score| score.is_none()).count(),
        }
    }

    fn mean(&self, kind: QuestionType, split: &str) -> Option<&MeanScore> {
        self.by_type.get(kind.name())?.get(split)
    }
}

/// The report as Markdown: a table per judge, their agreement, and the published rows. `model` labels the rows.
pub fn markdown(model: &str, judges: &[(String, Summary)], agreement: Option<Agreement>) -> String {
    let mut text =
        "# Robot bench\n\nMean scores from 0 to 3, with 95 % bootstrap intervals over questions.\n"
            .to_owned();
    // A string takes all that is written to it.
    for (judge, summary) in judges {
        let _ = writeln!(text, "\n## Judge: {judge}\n");
        text.push_str("| type | split | questions | score | interval |\n|---|---|--:|--:|--:|\n");
        for kind in QuestionType::ALL {
            for (split, MeanScore { n, mean, interval }) in
                summary.by_type.get(kind.name()).into_iter().flatten()
            {
                let Interval { low, high } = interval;
                let (kind, split) = (kind.name(), split.replace('|', "\\|"));
                let _ = writeln!(
                    text,
                    "| {kind} | {split} | {n} | {mean:.2} | {low:.2} to {high:.2} |"
                );
            }
        }
        if summary.unscored > 0 {
            let _ = writeln!(text, "\n{} questions have no score.", summary.unscored);
        }
    }
    if let Some(Agreement { n, equal, within_1, correlation }) = agreement {
        let correlation = correlation.map_or("undefined".to_owned(), |it| format!("{it:.2}"));
        let _ = writeln!(
            text,
            "\nThe judges agree on {:.0} % of {n} questions, and on {:.0} % within 1 point; the correlation of their \
             scores is {correlation}.",
            100.0 * equal,
            100.0 * within_1
        );
    }
    text.push_str(
        "\n## Beside published results\n\nThe published rows are of another question set, which is not public, and another \
         judge (GPT-4o): Robot-R1 (arXiv 2506.00070), Tables 2 and 3. In and out are tasks of its training and others.\n\n\
         | model | planning | high-level action | movement | in | out | spatial | in | out |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (judge, summary) in judges {
        let cell = |kind, split| summary.mean(kind, split).map(|mean| mean.mean);
        let either =
            |kind, names: [&'static str; 2]| names.into_iter().find_map(|name| cell(kind, name));
        let low_level = |kind| [cell(kind, ALL), either(kind, SEEN), either(kind, UNSEEN)];
        let [planning, action] =
            [QuestionType::Planning, QuestionType::HighLevelAction].map(|kind| cell(kind, ALL));
        let (movement, spatial) =
            (low_level(QuestionType::Movement), low_level(QuestionType::Spatial));
        let name = format!("**{}** ({judge})", model.replace('|', "\\|"));
        cells(&mut text, &name, [planning, action], [movement, spatial]);
    }
    for PublishedRow { model, planning, high_level_action, movement, spatial } in ROWS {
        let low_level = |[seen, unseen, all]: [f64; 3]| [Some(all), Some(seen), Some(unseen)];
        let low_level = [low_level(movement), low_level(spatial)];
        cells(&mut text, model, [planning, high_level_action], low_level);
    }
    text
}

fn cells(
    text: &mut String,
    name: &str,
    high_level: [Option<f64>; 2],
    low_level: [[Option<f64>; 3]; 2],
) {
    let cell = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
    let values = high_level.into_iter().chain(low_level.into_iter().flatten());
    let _ = writeln!(text, "| {name} | {} |", values.map(cell).collect::<Vec<_>>().join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: QuestionType, split: &str) -> BenchQuestion {
        BenchQuestion {
            image: "a.png".into(),
            question: "q".to_owned(),
            answer: "a".to_owned(),
            kind,
            task: "t".to_owned(),
            split: split.to_owned(),
            facts: None,
        }
    }

    #[test]
    fn a_bootstrap_interval_is_that_of_the_normal_approximation() {
        let scores: Vec<u8> = (0..400).map(|i| (i % 4) as u8).collect();
        let MeanScore { n, mean, interval } = MeanScore::new(&scores, 0).unwrap();
        assert_eq!((n, mean), (400, 1.5));
        // 1.96 standard errors of 1.25 (variance) over 400.
        let half = 1.96 * (1.25f64 / 400.0).sqrt();
        assert!((interval.low - (1.5 - half)).abs() < 0.01, "{interval:?}");
        assert!((interval.high - (1.5 + half)).abs() < 0.01, "{interval:?}");
        assert_eq!(MeanScore::new(&[], 0), None);
        let one = MeanScore::new(&[2], 0).unwrap();
        assert_eq!((one.interval.low, one.interval.high), (2.0, 2.0));
    }

    #[test]
    fn means_are_by_type_and_split() {
        use QuestionType::{Movement, Spatial};
        let questions =
            [question(Movement, "in"), question(Movement, "out"), question(Spatial, "in")];
        let summary = Summary::new(&questions, &[Some(3), Some(0), None], 0);
        assert_eq!(summary.unscored, 1);
        let mean = |kind, split| summary.mean(kind, split).map(|mean| (mean.n, mean.mean));
        assert_eq!(mean(Movement, "all"), Some((2, 1.5)));
        assert_eq!(mean(Movement, "in"), Some((1, 3.0)));
        assert_eq!(mean(Spatial, "all"), None);
    }

    #[test]
    fn agreement_is_over_questions_with_both_scores() {
        let a = [Some(0), Some(1), Some(2), Some(3), None];
        let b = [Some(0), Some(1), Some(3), Some(1), Some(2)];
        let found = Agreement::new(&a, &b).unwrap();
        assert_eq!((found.n, found.equal, found.within_1), (4, 0.5, 0.75));
        // Deviations -1.5 -.5 .5 1.5 and -1.25 -.25 1.75 -.25.
        let expected = 2.5 / (5.0f64 * 4.75).sqrt();
        assert!((found.correlation.unwrap() - expected).abs() < 1e-12);
        assert_eq!(Agreement::new(&a, &[Some(1); 5]).unwrap().correlation, None);
        assert_eq!(Agreement::new(&[None], &[Some(1)]), None);
    }

    #[test]
    fn published_rows_are_marked_as_of_another_question_set() {
        let questions =
            [question(QuestionType::Movement, "in"), question(QuestionType::Spatial, "held-out")];
        let summary = Summary::new(&questions, &[Some(2), Some(1)], 0);
        let text = markdown("mine", &[("rules".to_owned(), summary)], None);
        assert!(text.contains("| movement | all | 1 | 2.00 | 2.00 to 2.00 |"), "{text}");
        assert!(text.contains("another question set"), "{text}");
        let own = "| **mine** (rules) | – | – | 2.00 | 2.00 | – | 1.00 | – | 1.00 |";
        assert!(text.contains(own), "{text}");
        let published = "| Robot-R1 | 1.44 | 1.30 | 0.76 | 0.96 | 0.56 | 1.51 | 1.76 | 1.18 |";
        assert!(text.contains(published), "{text}");
    }
}
