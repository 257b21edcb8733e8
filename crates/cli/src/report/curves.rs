//! The curves of the paper's training figure, and the other metrics of a run.

use std::fmt::Write as _;

use super::chart::{Chart, Mark, Point, Scale, number, smoothed};
use super::events::Events;
use super::html::escape;

pub(super) const ACCURACY: &str = "rewards/accuracy/mean";
pub(super) const FORMAT: &str = "rewards/format/mean";
pub(super) const CONSISTENCY: &str = "rewards/consistency/mean";
pub(super) const LENGTH: &str = "completions/mean_length";

/// One chart of one metric.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) metric: &'static str,
    class: &'static str,
    pub(super) scale: Scale,
}

const fn panel(
    title: &'static str,
    metric: &'static str,
    class: &'static str,
    scale: Scale,
) -> Panel {
    Panel { title, metric, class, scale }
}

/// Charts that the paper's figure does not have.
pub(super) const MORE: &[Panel] = &[
    panel("Loss", "loss", "other", Scale::Free),
    panel("Reward", "reward", "other", Scale::FromZero),
    panel("Reward standard deviation", "reward_std", "other", Scale::FromZero),
    panel("Zero-variance groups", "frac_reward_zero_std", "other", Scale::Share),
    panel("KL to the reference", "kl", "other", Scale::FromZero),
    panel("Entropy", "entropy", "other", Scale::FromZero),
    panel("Token accuracy", "mean_token_accuracy", "other", Scale::Share),
    panel("Gradient norm", "grad_norm", "other", Scale::FromZero),
    panel("Learning rate", "learning_rate", "other", Scale::FromZero),
    panel("Truncated completions", "completions/clipped_ratio", "other", Scale::Share),
    panel("Clip ratio", "clip_ratio/region_mean", "other", Scale::FromZero),
    panel("Step time, s", "step_time", "other", Scale::FromZero),
];

/// The section with all curves of the run.
pub(super) fn section(events: &Events) -> String {
    let window = (events.steps.len() / 20).max(1);
    let marks: Vec<_> = match events.stages.as_slice() {
        [] | [_] => Vec::new(),
        stages => {
            let mark = |(index, stage): (usize, &super::events::Stage)| Mark {
                step: stage.first_step as f64,
                label: format!("stage {}", index + 1),
            };
            stages.iter().enumerate().map(mark).collect()
        }
    };
    let paper_figure = paper_figure(events, window, &marks);
    let more: String = MORE
        .iter()
        .filter(|panel| events.has(panel.metric))
        .map(|panel| {
            let points = events.series(panel.metric);
            let smooth = smoothed(&points, window);
            drawn(panel, &points, &smooth, &marks)
        })
        .collect();
    let more = validation(events, &marks) + &more;
    if paper_figure.is_empty() && more.is_empty() {
        return String::new();
    }
    let mut html = String::from("<section>\n<h2>Curves</h2>\n");
    if window > 1 {
        let _ = writeln!(
            html,
            "<p class=\"note\">Thin: per step. Bold: moving average over {window} steps.</p>"
        );
    }
    if paper_figure.is_empty() {
        let _ = writeln!(html, "<div class=\"grid\">\n{more}</div>\n</section>");
        return html;
    }
    let _ = writeln!(html, "<div class=\"grid\">\n{paper_figure}</div>");
    html.push_str(&legend(events));
    if !more.is_empty() {
        let _ = writeln!(
            html,
            "<details class=\"more\"><summary>more curves</summary>\
             <div class=\"grid inner\">\n{more}</div></details>"
        );
    }
    html.push_str("</section>\n");
    html
}

/// The four curves of the paper's figure, if the run has them.
fn paper_figure(events: &Events, window: usize, marks: &[Mark]) -> String {
    let mut html = String::new();
    let plain = [
        panel("Accuracy reward", ACCURACY, "accuracy", Scale::Share),
        panel("Format reward", FORMAT, "format", Scale::Share),
    ];
    for panel in plain.iter().filter(|panel| events.has(panel.metric)) {
        let points = events.series(panel.metric);
        html.push_str(&drawn(panel, &points, &smoothed(&points, window), marks));
    }
    if events.has(ACCURACY) && events.has(CONSISTENCY) {
        let (consistency, accuracy) = (events.series(CONSISTENCY), events.series(ACCURACY));
        let points = consistency_rate(events);
        // The ratio of means: a mean of ratios would overweight steps with few correct answers.
        let smooth = ratio(&smoothed(&consistency, window), &smoothed(&accuracy, window));
        let panel = panel(
            "Consistency of correct answers",
            "consistency / accuracy",
            "consistency",
            Scale::Share,
        );
        html.push_str(&drawn(&panel, &points, &smooth, marks));
    }
    if events.has(LENGTH) {
        let points = events.series(LENGTH);
        let panel = panel("Completion length, tokens", LENGTH, "length", Scale::FromZero);
        html.push_str(&drawn(&panel, &points, &smoothed(&points, window), marks));
    }
    html
}

/// Validation metrics that were measured more than once.
fn validation(events: &Events, marks: &[Mark]) -> String {
    let panels = [
        panel("Validation accuracy", "eval/accuracy", "accuracy", Scale::Share),
        panel("Validation loss", "eval/loss", "accuracy", Scale::Free),
    ];
    let drawn = |panel: &Panel| {
        let points = events.evaluated(panel.metric);
        let measured = points.iter().filter(|(_, value)| value.is_some()).count();
        (measured > 1).then(|| drawn(panel, &points, &points, marks))
    };
    panels.iter().filter_map(drawn).collect()
}

/// The fraction of correct answers that follow from their reasoning, at each step.
pub(super) fn consistency_rate(events: &Events) -> Vec<Point> {
    ratio(&events.series(CONSISTENCY), &events.series(ACCURACY))
}

/// `a / b` at each step; `None` if either is missing or `b` is 0.
pub(super) fn ratio(a: &[Point], b: &[Point]) -> Vec<Point> {
    let share = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) if b > 0.0 => Some(a / b),
        _ => None,
    };
    a.iter().zip(b).map(|(&(step, a), &(_, b))| (step, share(a, b))).collect()
}

fn drawn(panel: &Panel, points: &[Point], smooth: &[Point], marks: &[Mark]) -> String {
    let chart =
        Chart { title: panel.title, class: panel.class, scale: panel.scale, points, smooth, marks };
    format!(
        "<div class=\"card panel\"><h3>{} <code>{}</code></h3>\n{}</div>\n",
        panel.title,
        panel.metric,
        chart.svg()
    )
}

/// The reward weights of each stage.
fn legend(events: &Events) -> String {
    if events.stages.is_empty() {
        return String::new();
    }
    let mut html = String::from("<ul class=\"stages\">\n");
    for (index, stage) in events.stages.iter().enumerate() {
        let weights = stage
            .weights
            .iter()
            .map(|(name, weight)| format!("{} {}", escape(name), number(*weight)));
        let _ = writeln!(
            html,
            "<li><b>stage {}</b> from step {}: {}</li>",
            index + 1,
            stage.first_step,
            weights.collect::<Vec<_>>().join(", ")
        );
    }
    html.push_str("</ul>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_has_no_value_at_zero_accuracy() {
        let consistency = [(1.0, Some(0.25)), (2.0, Some(0.0)), (3.0, None)];
        let accuracy = [(1.0, Some(0.5)), (2.0, Some(0.0)), (3.0, Some(1.0))];
        assert_eq!(ratio(&consistency, &accuracy), [(1.0, Some(0.5)), (2.0, None), (3.0, None)]);
    }

    #[test]
    fn the_loss_of_a_run_without_rewards_is_not_collapsed() {
        let mut events = Events::default();
        events.steps.entry(1).or_default().insert("loss".to_owned(), 2.0);
        let html = section(&events);
        assert!(html.contains("<code>loss</code>"));
        assert!(!html.contains("<details"), "{html}");
    }

    #[test]
    fn stages_are_drawn_with_their_weights() {
        let mut events = Events::default();
        for step in 1..=2u64 {
            let metrics = events.steps.entry(step).or_default();
            metrics.insert(ACCURACY.to_owned(), 0.5);
            let weights = [("format".to_owned(), step as f64)].into();
            events.stages.push(super::super::events::Stage { first_step: step, weights });
        }
        let html = section(&events);
        assert!(html.contains("stage 2</text>"));
        assert!(html.contains("<b>stage 2</b> from step 2: format 2"), "{html}");
    }
}
