//! Comparison of several runs on one page: overlaid curves, final metrics side by side, and the settings that differ.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::chart::{Point, Scale, number};
use crate::document::{Page, document, folder_name};
use crate::error::Result;
use crate::events::Events;
use crate::html::escape;
use crate::metrics::{ACCURACY, CONSISTENCY, FORMAT, LENGTH};
use crate::overlay::{Curve, Overlay, class};
use crate::scores::{self, Scores};
use crate::summary::{count, duration, ends};
use crate::{curves, settings};

/// One of the runs.
struct Run {
    name: String,
    events: Events,
    settings: Vec<(String, String)>,
    /// The run's evaluation after training, if any.
    scores: Option<Scores>,
}

/// Settings that always differ between runs.
const OWN: [&str; 1] = ["output"];

/// Reads the runs and renders their page. `evals` are results as in
/// [`Sources`](crate::Sources); if empty, each run's own last one is used.
///
/// # Errors
/// A run has no events, or a file of scores cannot be read.
pub fn compare(folders: &[PathBuf], evals: &[String], title: Option<&str>) -> Result<Page> {
    let runs: Vec<Run> = folders
        .iter()
        .zip(names(folders))
        .map(|(folder, name)| {
            Ok(Run {
                events: Events::read(folder)?,
                settings: settings::read(folder),
                scores: scores::last(folder)?.map(|found| Scores { name: name.clone(), ..found }),
                name,
            })
        })
        .collect::<Result<_>>()?;
    let title = match title {
        Some(title) => title.to_owned(),
        None => runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(" · "),
    };
    let mut body = legend(&runs);
    body.push_str(&final_metrics(&runs));
    body.push_str(&charts(&runs));
    body.push_str(&match evals {
        [] => {
            let found: Vec<Scores> = runs.iter().filter_map(|run| run.scores.clone()).collect();
            scores::side_by_side(&found)
        }
        files => scores::section(&scores::read(files)?),
    });
    body.push_str(&differences(&runs));
    let note = format!("{} runs", runs.len());
    let skipped_lines = runs.iter().map(|run| run.events.skipped).sum();
    Ok(Page { html: document(&title, "run comparison", &note, &body), skipped_lines })
}

/// Run names: their folders' names, with as many parent folders as make them unique.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let whole: Vec<PathBuf> = folders
        .iter()
        .map(|folder| std::path::absolute(folder).unwrap_or_else(|_| folder.clone()))
        .collect();
    let deepest = whole.iter().map(|path| path.components().count()).max().unwrap_or(1);
    (1..=deepest)
        .map(|parts| whole.iter().map(|path| tail(path, parts)).collect::<Vec<String>>())
        .find(|names| names.iter().collect::<HashSet<_>>().len() == names.len())
        .unwrap_or_else(|| whole.iter().map(|path| folder_name(path)).collect())
}

/// The last parts of a path.
fn tail(path: &Path, parts: usize) -> String {
    let all: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    all[all.len().saturating_sub(parts)..].join("/")
}

/// The color of each run.
fn legend(runs: &[Run]) -> String {
    let mut html = String::from("<ul class=\"runs\">\n");
    for (index, run) in runs.iter().enumerate() {
        let class = class(index);
        let _ = writeln!(html, "<li><i class=\"{class}\"></i>{}</li>", escape(&run.name));
    }
    html.push_str("</ul>\n");
    html
}

/// A table row: its label and its value for a run.
type MetricRow = (&'static str, fn(&Events) -> Option<String>);

/// The end of a metric's curve.
macro_rules! last {
    ($metric:expr) => {
        |events| ends(&curves::smooth(events, $metric)).map(|(_, last)| number(last))
    };
}

const METRIC_ROWS: [MetricRow; 16] = [
    ("steps", |events| events.steps.keys().next_back().map(u64::to_string)),
    ("tokens", |events| events.last("num_tokens").map(count)),
    ("training time", |events| {
        let seconds: f64 = events.series("step_time").iter().filter_map(|(_, value)| *value).sum();
        (seconds > 0.0).then(|| duration(seconds))
    }),
    ("reward", last!("reward")),
    ("accuracy reward", last!(ACCURACY)),
    ("format reward", last!(FORMAT)),
    ("consistency of correct answers", |events| {
        ends(&curves::smooth_consistency(events)).map(|(_, last)| number(last))
    }),
    ("completion length, tokens", last!(LENGTH)),
    ("truncated completions", last!("completions/clipped_ratio")),
    ("loss", last!("loss")),
    ("KL to the reference", last!("kl")),
    ("entropy", last!("entropy")),
    ("gradient norm", last!("grad_norm")),
    ("step time, s", last!("step_time")),
    ("best validation accuracy", |events| best(events, "eval/accuracy", f64::max)),
    ("best validation loss", |events| best(events, "eval/loss", f64::min)),
];

/// The best value of a validation metric, with its step.
fn best(events: &Events, metric: &str, better: fn(f64, f64) -> f64) -> Option<String> {
    let points = events.evaluated(metric);
    let values = points.iter().filter_map(|&(step, value)| Some((step, value?)));
    let (step, value) = values.reduce(|a, b| if better(a.1, b.1) == a.1 { a } else { b })?;
    Some(format!("{} at step {}", number(value), number(step)))
}

fn final_metrics(runs: &[Run]) -> String {
    let mut html = String::from(
        "<section>\n<h2>Final metrics</h2>\n<p class=\"note\">Ends of the curves: \
         moving averages over 5 % of the steps.</p>\n",
    );
    html.push_str(&head("", runs));
    for (label, value) in METRIC_ROWS {
        let cells: Vec<Option<String>> = runs.iter().map(|run| value(&run.events)).collect();
        if cells.iter().any(Option::is_some) {
            row(label, cells.iter().map(Option::as_deref), &mut html);
        }
    }
    html.push_str("</tbody></table></div>\n</section>\n");
    html
}

/// The head of a table with one column per run.
fn head(class: &str, runs: &[Run]) -> String {
    let mut html = format!("<div class=\"card scroll\"><table{class}>\n<thead><tr><th></th>");
    for (index, run) in runs.iter().enumerate() {
        let color = self::class(index);
        let _ = write!(html, "<th><i class=\"swatch {color}\"></i>{}</th>", escape(&run.name));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    html
}

fn row<'a>(label: &str, cells: impl Iterator<Item = Option<&'a str>>, html: &mut String) {
    let _ = write!(html, "<tr><td>{}</td>", escape(label));
    for cell in cells {
        let _ = write!(html, "<td>{}</td>", escape(cell.unwrap_or("–")));
    }
    html.push_str("</tr>\n");
}

/// A chart of every metric that any run has.
fn charts(runs: &[Run]) -> String {
    let plain = |title: &str, metric: &str, scale| {
        chart(runs, (title, metric), scale, |events| curves::smooth(events, metric))
    };
    let mut panels = vec![
        plain("Accuracy reward", ACCURACY, Scale::Share),
        plain("Format reward", FORMAT, Scale::Share),
        chart(
            runs,
            ("Consistency of correct answers", "consistency / accuracy"),
            Scale::Share,
            curves::smooth_consistency,
        ),
        plain("Completion length, tokens", LENGTH, Scale::FromZero),
    ];
    for (title, metric, scale) in [
        ("Validation accuracy", "eval/accuracy", Scale::Share),
        ("Validation loss", "eval/loss", Scale::Free),
    ] {
        panels.push(chart(runs, (title, metric), scale, |events| events.evaluated(metric)));
    }
    for metric in other_rewards(runs) {
        panels.push(plain("Reward", &metric, Scale::Free));
    }
    let more = curves::MORE.iter().map(|panel| plain(panel.title, panel.metric, panel.scale));
    let charts: String = panels.into_iter().chain(more).flatten().collect();
    if charts.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>Curves</h2>\n<p class=\"note\">Moving average over 5 % of each run's \
         steps.</p>\n<div class=\"grid\">\n{charts}</div>\n</section>\n"
    )
}

/// Mean rewards other than the three that have charts of their own.
fn other_rewards(runs: &[Run]) -> BTreeSet<String> {
    let metrics = runs.iter().flat_map(|run| run.events.steps.values()).flat_map(|of| of.keys());
    let other = metrics.filter(|metric| {
        metric.starts_with("rewards/")
            && metric.ends_with("/mean")
            && ![ACCURACY, FORMAT, CONSISTENCY].contains(&metric.as_str())
    });
    other.cloned().collect()
}

/// One metric of all runs; `None` if no run has it.
fn chart(
    runs: &[Run],
    (title, metric): (&str, &str),
    scale: Scale,
    points: impl Fn(&Events) -> Vec<Point>,
) -> Option<String> {
    let curves: Vec<Curve<'_>> = runs
        .iter()
        .enumerate()
        .map(|(index, run)| Curve { run: index, name: &run.name, points: points(&run.events) })
        .filter(|curve| curve.points.iter().any(|(_, value)| value.is_some()))
        .collect();
    (!curves.is_empty()).then(|| {
        format!(
            "<div class=\"card panel\"><h3>{} <code>{}</code></h3>\n{}</div>\n",
            escape(title),
            escape(metric),
            Overlay { title, scale, curves: &curves }.svg()
        )
    })
}

/// The settings that differ between runs.
fn differences(runs: &[Run]) -> String {
    let value = |run: &Run, name: &str| {
        let found = run.settings.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.clone())
    };
    let mut seen = HashSet::new();
    let all = runs.iter().flat_map(|run| run.settings.iter().map(|(name, _)| name.as_str()));
    let names: Vec<&str> =
        all.filter(|name| !OWN.contains(name) && seen.insert(name.to_owned())).collect();
    let differing = names.iter().filter_map(|name| {
        let values: Vec<Option<String>> = runs.iter().map(|run| value(run, name)).collect();
        values.iter().any(|value| *value != values[0]).then_some((*name, values))
    });
    let differing: Vec<(&str, Vec<Option<String>>)> = differing.collect();
    let mut html = String::from("<section>\n<h2>Settings that differ</h2>\n");
    if differing.is_empty() {
        let note = match names.is_empty() {
            true => "No run saved its settings.",
            false => "None: the runs have the same settings.",
        };
        let _ = writeln!(html, "<p class=\"note\">{note}</p>\n</section>");
        return html;
    }
    html.push_str(&head(" class=\"settings\"", runs));
    for (name, values) in &differing {
        row(name, values.iter().map(Option::as_deref), &mut html);
    }
    html.push_str("</tbody></table></div>\n</section>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(parent: &Path, name: &str, events: &str, settings: &str) -> PathBuf {
        let folder = parent.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("events.jsonl"), events).unwrap();
        std::fs::write(folder.join("settings.toml"), settings).unwrap();
        folder
    }

    fn events(accuracy: f64) -> String {
        format!(
            "{{\"event\":\"step\",\"step\":1,\"rewards/accuracy/mean\":0.1,\"kl\":0.5}}\n\
             {{\"event\":\"step\",\"step\":2,\"rewards/accuracy/mean\":{accuracy},\
             \"rewards/brevity/mean\":0.75}}\n\
             {{\"event\":\"eval\",\"step\":1,\"eval/accuracy\":0.5}}\n\
             {{\"event\":\"eval\",\"step\":2,\"eval/accuracy\":0.25}}\n"
        )
    }

    #[test]
    fn runs_are_overlaid_with_their_metrics_and_differing_settings() {
        let dir = tempfile::tempdir().unwrap();
        let runs = [
            run(dir.path(), "a<1", &events(0.4), "beta = 0.0\nseed = 1\noutput = \"x\"\n"),
            run(dir.path(), "b", &events(0.8), "beta = 0.1\nseed = 1\noutput = \"y\"\n"),
        ];
        let html = compare(&runs, &[], None).unwrap().html;
        for part in [
            "<h1>a&lt;1 · b</h1>",
            "<li><i class=\"run-1\"></i>b</li>",
            "<td>accuracy reward</td><td>0.4</td><td>0.8</td>",
            "<td>best validation accuracy</td><td>0.5 at step 1</td><td>0.5 at step 1</td>",
            "<code>rewards/brevity/mean</code>",
            "<td>beta</td><td>0.0</td><td>0.1</td>",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert!(!html.contains("<td>seed</td>") && !html.contains("<td>output</td>"));
        for outside in ["http://", "https://", "<script", "<link", "@import", "src="] {
            assert!(!html.contains(outside), "{outside}");
        }
        let panel = html.split("<code>rewards/accuracy/mean</code>").nth(1).unwrap();
        let panel = panel.split("</svg>").next().unwrap();
        assert!(panel.contains("smooth run-0") && panel.contains("smooth run-1"), "{panel}");
    }

    #[test]
    fn runs_with_equal_names_are_distinguished_by_their_parent_folders() {
        let folders = ["/r/one/run", "/r/two/run"].map(PathBuf::from);
        assert_eq!(names(&folders), ["one/run", "two/run"]);
        assert_eq!(names(&["/r/a", "/s/b"].map(PathBuf::from)), ["a", "b"]);
    }

    #[test]
    fn equal_settings_are_reported_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let runs = ["a", "b"].map(|name| run(dir.path(), name, &events(0.5), "beta = 0.1\n"));
        assert!(
            compare(&runs, &[], None).unwrap().html.contains("the runs have the same settings")
        );
    }

    #[test]
    fn the_evaluations_after_training_are_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let runs = ["a", "b"].map(|name| run(dir.path(), name, &events(0.5), ""));
        for (run, before, after) in [(&runs[0], 10, 30), (&runs[1], 20, 40)] {
            for (name, score) in [("before", before), ("after", after)] {
                let text = format!(
                    "{{\"protocol\":\"p\",\"n\":5,\"overall\":{score},\
                     \"by_category\":{{\"c\":{{\"score\":{score},\"n\":5}}}}}}"
                );
                std::fs::write(run.join(format!("{name}.json")), text).unwrap();
            }
        }
        let html = compare(&runs, &[], None).unwrap().html;
        assert!(html.contains("<td>c</td><td>5</td><td>30.0</td><td>40.0</td>"), "{html}");
    }
}
