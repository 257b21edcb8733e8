//! The share of correct answers that follow from their reasoning: consistency over accuracy.

use crate::chart::Point;
use crate::events::Events;
use crate::metrics::{ACCURACY, CONSISTENCY};

/// Step, and its mean consistency with the mean accuracy of the same completions, if it has both.
type Pair = (f64, Option<(f64, f64)>);

/// The pair of each step.
pub(crate) fn steps(events: &Events) -> Vec<Pair> {
    let accuracy = (events.series("rewards/consistency/accuracy"), events.series(ACCURACY));
    pairs(&events.series(CONSISTENCY), &accuracy.0, &accuracy.1)
}

/// The pair of each evaluation on held-out questions.
pub(crate) fn evaluations(events: &Events) -> Vec<Pair> {
    let accuracy =
        (events.evaluated("eval/consistency/accuracy"), events.evaluated("eval/accuracy"));
    pairs(&events.evaluated("eval/consistency"), &accuracy.0, &accuracy.1)
}

/// Pairs consistency with the accuracy of the completions that have one, or in runs that do not log it, with that of
/// all completions. A consistency above the accuracy is that of other completions, so they make no pair.
fn pairs(consistency: &[Point], judged: &[Point], all: &[Point]) -> Vec<Pair> {
    let pair = |consistency: Option<f64>, accuracy: Option<f64>| {
        Some((consistency?, accuracy?)).filter(|(consistency, accuracy)| consistency <= accuracy)
    };
    let accuracies = judged.iter().zip(all).map(|((_, judged), (_, all))| judged.or(*all));
    let steps = consistency.iter().zip(accuracies);
    steps.map(|(&(step, consistency), accuracy)| (step, pair(consistency, accuracy))).collect()
}

/// The ratio of the sums over the pairs of a window of steps around each pair; a mean of ratios would overweight steps
/// with few correct answers. There is none where a step has no pair, and none without correct answers.
pub(crate) fn rate(pairs: &[Pair], window: usize) -> Vec<Point> {
    let reach = window / 2;
    let rate = |(index, &(step, pair)): (usize, &Pair)| {
        let end = (index + reach + 1).min(pairs.len());
        let around = pairs[index.saturating_sub(reach)..end].iter().filter_map(|(_, pair)| *pair);
        let (consistency, accuracy) =
            around.fold((0.0, 0.0), |(sum, of), (value, accuracy)| (sum + value, of + accuracy));
        (step, pair.filter(|_| accuracy > 0.0).map(|_| consistency / accuracy))
    };
    pairs.iter().enumerate().map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::smoothed;

    /// Events whose steps have these accuracies and consistencies.
    fn events(steps: &[(f64, Option<f64>)]) -> Events {
        let mut events = Events::default();
        for (step, (accuracy, consistency)) in (1..).zip(steps) {
            let metrics = events.steps.entry(step).or_default();
            metrics.insert(ACCURACY.to_owned(), *accuracy);
            metrics.extend(consistency.map(|value| (CONSISTENCY.to_owned(), value)));
        }
        events
    }

    fn values(points: &[Point]) -> Vec<Option<f64>> {
        points.iter().map(|(_, value)| *value).collect()
    }

    #[test]
    fn the_consistency_curve_exceeded_1_where_the_judge_starts_while_accuracy_rises() {
        let events = events(&[(0.25, None), (0.25, None), (0.75, Some(0.75)), (0.75, Some(0.75))]);
        let smooth = |metric: &str| smoothed(&events.series(metric), 4);
        let separately = smooth(CONSISTENCY)[2].1.unwrap() / smooth(ACCURACY)[2].1.unwrap();
        assert!(separately > 1.4, "the events do not show the bug: {separately}");
        assert_eq!(values(&rate(&steps(&events), 4)), [None, None, Some(1.0), Some(1.0)]);
    }

    #[test]
    fn the_accuracy_of_the_judged_completions_is_preferred() {
        let mut events = events(&[(0.5, Some(0.75)), (0.5, Some(0.75))]);
        assert_eq!(values(&rate(&steps(&events), 1)), [None, None], "it is no share of 0.5");
        let metrics = events.steps.get_mut(&1).unwrap();
        metrics.insert("rewards/consistency/accuracy".to_owned(), 1.0);
        assert_eq!(values(&rate(&steps(&events), 1)), [Some(0.75), None]);
    }

    #[test]
    fn a_window_without_correct_answers_has_no_rate() {
        let events = events(&[(0.5, Some(0.25)), (0.0, Some(0.0)), (0.0, Some(0.0))]);
        assert_eq!(values(&rate(&steps(&events), 1)), [Some(0.5), None, None]);
        assert_eq!(values(&rate(&steps(&events), 3)), [Some(0.5), Some(0.5), None]);
    }
}
