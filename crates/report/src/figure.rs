//! The reward curves as one SVG file that needs no style sheet, for a README or a paper.

use std::fmt::Write as _;
use std::path::Path;

use crate::chart::{Chart, HEIGHT, LEFT, Mark, RIGHT, WIDTH, thin};
use crate::curves::{self, RewardCurve};
use crate::document::folder_name;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::html::escape;

/// Space above the panels, for their titles.
const HEAD: f64 = 46.0;
/// Height of a line of the legend.
const LINE: f64 = 28.0;
/// Space at both sides of a panel, since the labels are larger than on a page.
const SIDE: f64 = 20.0;
/// Maximum points of a curve.
const POINTS: usize = 200;
/// The least width of a stage whose label is more than its number.
const LABEL: f64 = 70.0;

/// Colors are those of the page on white. No custom properties: some renderers of SVG do not know them.
const STYLE: &str = "\
text { font: 19px system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; fill: #5b6472; }
.title { font-size: 22px; font-weight: 600; fill: #171a21; }
.accuracy { color: #2563eb; } .format { color: #0d9488; } .consistency { color: #9333ea; } .legend { color: #5b6472; }
.smooth { fill: none; stroke: currentColor; stroke-width: 3; stroke-linejoin: round; stroke-linecap: round; }
.held-out { fill: none; stroke: currentColor; stroke-width: 2; } path.held-out { stroke-dasharray: 2 4; }
circle.held-out { fill: #fff; }
.end { fill: currentColor; } .end-label { fill: currentColor; font-weight: 600; }
.grid { stroke: #e3e6eb; } .stage { fill: #f3f5f9; } .boundary { stroke: #97a1b0; stroke-dasharray: 3 4; }
.tick, .stage-label { text-anchor: middle; } .tick.y { text-anchor: end; }
";

/// Reads a run and draws its reward curves side by side, on white: the moving average of training, and held-out
/// questions.
///
/// # Errors
/// The run has no events or no rewards.
pub fn figure(run: &Path) -> Result<String> {
    let events = Events::read(run)?;
    let curves = curves::reward_curves(&events);
    if curves.is_empty() {
        return Err(Error::NoRewards { run: run.to_path_buf() });
    }
    Ok(drawn(&folder_name(run), &events, &curves))
}

fn drawn(name: &str, events: &Events, curves: &[RewardCurve]) -> String {
    let marks = marks(events);
    let legend = legend(events, curves, &marks);
    let panel = WIDTH + 2.0 * SIDE;
    let width = panel * curves.len() as f64;
    let height = HEAD + HEIGHT + LINE * legend.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>Reward curves of {}</title>\n<style>\n{STYLE}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n",
        escape(name)
    );
    for (index, curve) in curves.iter().enumerate() {
        let smooth = thin(&curve.smooth, POINTS);
        let chart = Chart { points: &[], smooth: &smooth, ..curve.chart(&marks) };
        let x = SIDE + panel * index as f64;
        let _ = writeln!(svg, "<g class=\"{}\" transform=\"translate({x} {HEAD})\">", chart.class);
        let _ =
            writeln!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"-14\">{}</text>", chart.title);
        chart.content(&mut svg);
        svg.push_str("</g>\n");
    }
    for (index, (sample, text)) in legend.iter().enumerate() {
        let (x, y) = (SIDE + LEFT, HEAD + HEIGHT + LINE * (index as f64 + 0.5));
        let _ = writeln!(
            svg,
            "<g class=\"legend\" transform=\"translate({x} {y})\">{sample}\
             <text x=\"48\" y=\"6\">{text}</text></g>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The stages with their numbers alone, if one of them has no room for more.
fn marks(events: &Events) -> Vec<Mark> {
    let marks = curves::marks(events);
    let Some(end) = events.steps.keys().next_back().map(|step| *step as f64) else { return marks };
    let begins = marks.iter().map(|mark| mark.step);
    let ends = begins.clone().skip(1).chain([end]);
    let shortest = begins.zip(ends).map(|(begin, end)| end - begin).fold(f64::INFINITY, f64::min);
    if shortest / end * (WIDTH - LEFT - RIGHT) >= LABEL {
        return marks;
    }
    let number = |(index, mark): (usize, Mark)| Mark { label: (index + 1).to_string(), ..mark };
    marks.into_iter().enumerate().map(number).collect()
}

/// The lines of the legend: a sample and its meaning.
fn legend(events: &Events, curves: &[RewardCurve], marks: &[Mark]) -> Vec<(&'static str, String)> {
    let training = match curves::window(events) {
        1 => "training, per step".to_owned(),
        window => format!("training, moving average over {window} steps"),
    };
    let mut lines = vec![("<path class=\"smooth\" d=\"M0 0H36\"/>", training)];
    if curves.iter().any(|curve| curve.held_out.iter().any(|(_, value)| value.is_some())) {
        let sample = "<path class=\"held-out\" d=\"M0 0H36\"/><circle class=\"held-out\" cx=\"18\" r=\"3.5\"/>";
        lines.push((sample, "held-out questions, greedy decoding".to_owned()));
    }
    if let (Some(first), Some(last)) = (marks.first(), marks.last())
        && !first.label.contains(' ')
    {
        let numbers = format!("{} to {}: stages of training", first.label, last.label);
        lines.push(("<path class=\"boundary\" d=\"M18 -10V10\"/>", numbers));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long run with three stages and many evaluations.
    fn long_run(run: &Path, steps: u64) {
        let mut events = String::new();
        for (step, weight) in [(0, 0.0), (steps / 10, 0.0), (steps / 2, 0.2)] {
            let _ = writeln!(
                events,
                "{{\"event\":\"stage\",\"step\":{step},\"weights\":{{\"consistency\":{weight}}}}}"
            );
        }
        for step in 1..=steps {
            let _ = writeln!(
                events,
                "{{\"event\":\"step\",\"step\":{step},\"rewards/accuracy/mean\":0.6180339,\
                 \"rewards/format/mean\":0.987,\"rewards/consistency/mean\":0.5}}"
            );
            if step % 10 == 0 {
                let _ = writeln!(
                    events,
                    "{{\"event\":\"eval\",\"step\":{step},\"eval/accuracy\":0.5,\
                     \"eval/format\":0.9,\"eval/consistency\":0.25}}"
                );
            }
        }
        std::fs::write(run.join("events.jsonl"), events).unwrap();
    }

    fn drawn_run(steps: u64) -> String {
        let run = tempfile::tempdir().unwrap();
        long_run(run.path(), steps);
        figure(run.path()).unwrap()
    }

    #[test]
    fn a_figure_stands_alone_on_white_and_is_small_even_for_a_long_run() {
        let svg = drawn_run(5000);
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(svg.contains("fill=\"#fff\"/>"), "{svg}");
        for outside in ["var(", "href", "class=\"hit\"", "@import", "&nbsp;"] {
            assert!(!svg.contains(outside), "{outside}");
        }
        assert!(svg.len() < 40_000, "{} bytes", svg.len());
    }

    #[test]
    fn a_figure_has_training_held_out_questions_and_stages_of_each_reward() {
        let svg = drawn_run(100);
        let panels: Vec<&str> = svg.split("<g class=\"").skip(1).take(3).collect();
        for (panel, (class, end)) in
            panels.iter().zip([("accuracy", "0.62"), ("format", "0.99"), ("consistency", "0.81")])
        {
            assert!(panel.starts_with(class), "{panel}");
            assert!(panel.contains(&format!(">{end}</text>")), "{panel}");
            assert_eq!(panel.matches("<circle class=\"held-out\"").count(), 10, "{panel}");
            assert_eq!(panel.matches("class=\"boundary\"").count(), 2, "{panel}");
            assert!(panel.contains("class=\"stage-label\"") && panel.contains(">3</text>"));
        }
        assert!(svg.contains("1 to 3: stages of training"), "the first has no room for a label");
    }

    #[test]
    fn a_run_without_rewards_has_no_figure() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("events.jsonl"), "{\"step\":1,\"loss\":2.0}\n").unwrap();
        let error = figure(run.path()).unwrap_err().to_string();
        assert!(error.contains("has no rewards to draw"), "{error}");
    }
}
