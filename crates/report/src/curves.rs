//! The curves of the paper's training figure, and the other metrics of a run.

use std::fmt::Write as _;

use crate::chart::{Chart, Mark, Point, Scale, number, smoothed};
use crate::consistency;
use crate::events::Events;
use crate::html::escape;
use crate::metrics::{ACCURACY, CONSISTENCY, FORMAT, LENGTH};

/// One chart of one metric.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) metric: &'static str,
    class: &'static str,
    pub(crate) scale: Scale,
}

/// A reward in training, and on held-out questions.
pub(crate) struct RewardCurve {
    pub(crate) panel: Panel,
    points: Vec<Point>,
    pub(crate) smooth: Vec<Point>,
    pub(crate) held_out: Vec<Point>,
}

impl RewardCurve {
    pub(crate) fn chart<'a>(&'a self, marks: &'a [Mark]) -> Chart<'a> {
        Chart {
            points: &self.points,
            held_out: &self.held_out,
            ..self.panel.chart(&self.smooth, marks)
        }
    }
}

impl Panel {
    /// A chart of one curve.
    fn chart<'a>(&self, points: &'a [Point], marks: &'a [Mark]) -> Chart<'a> {
        Chart {
            title: self.title,
            class: self.class,
            scale: self.scale,
            points,
            smooth: points,
            held_out: &[],
            marks,
        }
    }
}

/// The weighted sum of the rewards.
const REWARD: &str = "reward";

const fn panel(
    title: &'static str,
    metric: &'static str,
    class: &'static str,
    scale: Scale,
) -> Panel {
    Panel { title, metric, class, scale }
}

/// Charts that the paper's figure does not have.
pub(crate) const MORE: &[Panel] = &[
    panel("Loss", "loss", "other", Scale::Free),
    panel("Reward", REWARD, "other", Scale::FromZero),
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

/// Steps of the moving average.
pub(crate) fn window(events: &Events) -> usize {
    (events.steps.len() / 20).max(1)
}

/// The moving average of a metric.
pub(crate) fn smooth(events: &Events, metric: &str) -> Vec<Point> {
    smoothed(&events.series(metric), window(events))
}

/// The moving average of the consistency of correct answers.
pub(crate) fn smooth_consistency(events: &Events) -> Vec<Point> {
    consistency::rate(&consistency::steps(events), window(events))
}

/// What the ends of curves are, in a sentence; empty if curves are not smoothed.
pub(crate) fn window_note(events: &Events) -> String {
    match window(events) {
        1 => String::new(),
        window => format!("Ends of the bold curves: moving averages over {window} steps."),
    }
}

/// The stages, if there are several.
pub(crate) fn marks(events: &Events) -> Vec<Mark> {
    match events.stages.as_slice() {
        [] | [_] => Vec::new(),
        stages => {
            let mark = |(index, stage): (usize, &crate::events::Stage)| Mark {
                step: stage.first_step as f64,
                label: format!("stage {}", index + 1),
            };
            stages.iter().enumerate().map(mark).collect()
        }
    }
}

/// The section with all curves of the run.
pub(crate) fn section(events: &Events) -> String {
    let (window, marks) = (window(events), marks(events));
    let paper_figure = paper_figure(events, &marks);
    let more: String = MORE
        .iter()
        .filter(|panel| events.has(panel.metric))
        .map(|panel| {
            let (points, smooth) = (events.series(panel.metric), smooth(events, panel.metric));
            let chart = Chart { smooth: &smooth, ..panel.chart(&points, &marks) };
            let note = if panel.metric == REWARD { weights_note(events) } else { String::new() };
            drawn(panel, &chart, &note)
        })
        .collect();
    let more = validation(events, &marks) + &more;
    if paper_figure.is_empty() && more.is_empty() {
        return String::new();
    }
    let mut html = String::from("<section>\n<h2>Curves</h2>\n");
    let smoothing =
        (window > 1).then(|| format!("Thin: per step. Bold: moving average over {window} steps."));
    let held_out = (!events.evaluations.is_empty() && !paper_figure.is_empty())
        .then(|| "Rings: held-out questions.".to_owned());
    let notes: Vec<String> = smoothing.into_iter().chain(held_out).collect();
    if !notes.is_empty() {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", notes.join(" "));
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

/// The rewards of the paper's figure that the run has, in training and on held-out questions.
pub(crate) fn reward_curves(events: &Events) -> Vec<RewardCurve> {
    let plain = [
        (panel("Accuracy reward", ACCURACY, "accuracy", Scale::Share), "eval/accuracy"),
        (panel("Format reward", FORMAT, "format", Scale::Share), "eval/format"),
    ];
    let plain = plain.into_iter().filter(|(panel, _)| events.has(panel.metric));
    let plain = plain.map(|(panel, held_out)| {
        let (points, smooth) = (events.series(panel.metric), smooth(events, panel.metric));
        RewardCurve { panel, smooth, points, held_out: events.evaluated(held_out) }
    });
    let consistency = (events.has(ACCURACY) && events.has(CONSISTENCY)).then(|| {
        let (title, metric) = ("Consistency of correct answers", "consistency / accuracy");
        RewardCurve {
            panel: panel(title, metric, "consistency", Scale::Share),
            points: consistency::rate(&consistency::steps(events), 1),
            smooth: smooth_consistency(events),
            held_out: consistency::rate(&consistency::evaluations(events), 1),
        }
    });
    plain.chain(consistency).collect()
}

/// The four curves of the paper's figure, if the run has them.
fn paper_figure(events: &Events, marks: &[Mark]) -> String {
    let rewards = reward_curves(events);
    let mut html: String =
        rewards.iter().map(|curve| drawn(&curve.panel, &curve.chart(marks), "")).collect();
    if events.has(LENGTH) {
        let points = events.series(LENGTH);
        let panel = panel("Completion length, tokens", LENGTH, "length", Scale::FromZero);
        let smooth = smooth(events, LENGTH);
        let held_out = events.evaluated("eval/completions/mean_length");
        let chart = Chart { smooth: &smooth, held_out: &held_out, ..panel.chart(&points, marks) };
        html.push_str(&drawn(&panel, &chart, ""));
    }
    html
}

/// Validation metrics that were measured more than once and have no training curve to stand beside.
fn validation(events: &Events, marks: &[Mark]) -> String {
    let panels = [
        panel("Validation accuracy", "eval/accuracy", "accuracy", Scale::Share),
        panel("Validation loss", "eval/loss", "accuracy", Scale::Free),
    ];
    let alone = |panel: &Panel| {
        let points = events.evaluated(panel.metric);
        let measured = points.iter().filter(|(_, value)| value.is_some()).count();
        (measured > 1).then(|| drawn(panel, &panel.chart(&points, marks), ""))
    };
    let is_beside = |panel: &&Panel| panel.metric == "eval/accuracy" && events.has(ACCURACY);
    panels.iter().filter(|panel| !is_beside(panel)).filter_map(alone).collect()
}

fn drawn(panel: &Panel, chart: &Chart<'_>, note: &str) -> String {
    format!(
        "<div class=\"card panel\"><h3>{} <code>{}</code></h3>\n{}{note}</div>\n",
        panel.title,
        panel.metric,
        chart.svg()
    )
}

/// Why the weighted sum of the rewards jumps, if stages change its weights.
fn weights_note(events: &Events) -> String {
    let changes = events.stages.windows(2).filter(|pair| pair[0].weights != pair[1].weights);
    let steps: Vec<String> = changes.map(|pair| pair[1].first_step.to_string()).collect();
    if steps.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"note\">The weighted sum of the rewards. Its weights change at step {}, so values before and after \
         are not comparable, and the curve may jump.</p>\n",
        steps.join(" and ")
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
            events.stages.push(crate::events::Stage { first_step: step, weights });
        }
        let html = section(&events);
        assert!(html.contains("stage 2</text>"));
        assert!(html.contains("<b>stage 2</b> from step 2: format 2"), "{html}");
    }

    #[test]
    fn the_reward_says_where_its_weights_change() {
        let mut events = Events::default();
        for step in 1..=3u64 {
            events.steps.entry(step).or_default().insert(REWARD.to_owned(), step as f64);
            // The second stage has the weights of the first.
            let weights = [("format".to_owned(), if step < 3 { 0.7 } else { 0.1 })].into();
            events.stages.push(crate::events::Stage { first_step: step, weights });
        }
        let html = section(&events);
        assert!(html.contains("Its weights change at step 3, so values"), "{html}");
        events.stages.pop();
        assert!(!section(&events).contains("weights change"));
    }

    #[test]
    fn evaluations_stand_beside_the_training_curve_of_their_metric() {
        let mut events = Events::default();
        for step in 0..=1 {
            let training = [(ACCURACY, 0.5), (FORMAT, 1.0), (CONSISTENCY, 0.25)];
            let held_out =
                [("eval/accuracy", 0.4), ("eval/format", 0.9), ("eval/consistency", 0.3)];
            let named = |metrics: [(&str, f64); 3]| {
                metrics.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
            };
            events.steps.insert(step + 1, named(training));
            events.evaluations.insert(step, named(held_out));
        }
        let html = section(&events);
        assert!(html.contains("Rings: held-out questions."));
        for (class, value) in [("accuracy", "0.4"), ("format", "0.9"), ("consistency", "0.75")] {
            let chart = html.split(&format!("<svg class=\"chart {class}\"")).nth(1).unwrap();
            let chart = chart.split("</svg>").next().unwrap();
            assert!(chart.contains(&format!("<title>held out, step 0: {value}<")), "{chart}");
        }
        assert!(!html.contains("Validation accuracy"), "it is not drawn twice");
    }
}
