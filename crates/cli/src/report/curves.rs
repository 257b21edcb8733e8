//! The curves of the paper's training figure, and the others that a run logs.

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

/// Charts beside the paper's figure.
pub(super) const MORE: &[Panel] = &[
    panel("Loss", "loss", "other", Scale::Free),
    panel("Reward", "reward", "other", Scale::FromZero),
    panel("Spread of the reward", "reward_std", "other", Scale::FromZero),
    panel("Groups without a signal", "frac_reward_zero_std", "other", Scale::Share),
    panel("KL to the reference", "kl", "other", Scale::FromZero),
    panel("Entropy", "entropy", "other", Scale::FromZero),
    panel("Token accuracy", "mean_token_accuracy", "other", Scale::Share),
    panel("Gradient norm", "grad_norm", "other", Scale::FromZero),
    panel("Learning rate", "learning_rate", "other", Scale::FromZero),
    panel("Completions cut off", "completions/clipped_ratio", "other", Scale::Share),
    panel("Ratios clipped", "clip_ratio/region_mean", "other", Scale::FromZero),
    panel("Seconds a step", "step_time", "other", Scale::FromZero),
];

/// The section with every curve that the run has values for.
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
    let figure = figure(events, window, &marks);
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
    if figure.is_empty() && more.is_empty() {
        return String::new();
    }
    let mut html = String::from("<section>\n<h2>Curves</h2>\n");
    if window > 1 {
        let _ = writeln!(
            html,
            "<p class=\"note\">Thin: each step. Bold: the mean over {window} steps.</p>"
        );
    }
    if figure.is_empty() {
        let _ = writeln!(html, "<div class=\"grid\">\n{more}</div>\n</section>");
        return html;
    }
    let _ = writeln!(html, "<div class=\"grid\">\n{figure}</div>");
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

/// The four curves of the paper's figure, as far as the run has them.
fn figure(events: &Events, window: usize, marks: &[Mark]) -> String {
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
        let points = consistent_share(events);
        // The ratio of means, as the mean of ratios gives steps with few right answers too much.
        let smooth = ratio(&smoothed(&consistency, window), &smoothed(&accuracy, window));
        let panel = panel(
            "Consistent among right answers",
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

/// What the run measured on validation data, where it did so more than once.
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

/// The share of right answers that follow from their reasoning, at each step.
pub(super) fn consistent_share(events: &Events) -> Vec<Point> {
    ratio(&events.series(CONSISTENCY), &events.series(ACCURACY))
}

/// `a / b` step by step; nothing where either is missing or `b` is 0.
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

/// Which rewards count how much in each stage.
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
    fn the_ratio_has_no_value_where_nothing_was_right() {
        let consistency = [(1.0, Some(0.25)), (2.0, Some(0.0)), (3.0, None)];
        let accuracy = [(1.0, Some(0.5)), (2.0, Some(0.0)), (3.0, Some(1.0))];
        assert_eq!(ratio(&consistency, &accuracy), [(1.0, Some(0.5)), (2.0, None), (3.0, None)]);
    }

    #[test]
    fn a_run_without_rewards_shows_its_loss_at_once() {
        let mut events = Events::default();
        events.steps.entry(1).or_default().insert("loss".to_owned(), 2.0);
        let html = section(&events);
        assert!(html.contains("<code>loss</code>"));
        assert!(!html.contains("<details"), "{html}");
    }

    #[test]
    fn stages_are_drawn_and_their_weights_told() {
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
