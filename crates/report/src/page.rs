//! A run as one page: curves, scores, completions, settings.

use std::fmt::Write as _;
use std::path::Path;

use crate::chart::number;
use crate::document::{Page, document, folder_name};
use crate::environment::environment;
use crate::error::Result;
use crate::events::Events;
use crate::html::escape;
use crate::metrics::{ACCURACY, FORMAT, LENGTH};
use crate::scores::{self, Scores};
use crate::summary::{count, duration, ends};
use crate::{completions, curves, settings};

/// The inputs of a page.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Folder of the run, with its `events.jsonl`.
    pub run: &'a Path,
    /// Results of `embodied-r eval` as `FILE` or `LABEL=FILE`; the first two are before and after training.
    /// Those that [`keep_scores`](crate::keep_scores) has kept follow. If empty, also those in the run's folder.
    pub evals: &'a [String],
    /// Heading of the page; by default the folder's name.
    pub title: Option<&'a str>,
}

/// Reads a run and renders its page.
///
/// # Errors
/// The run has no events, or a file of scores or completions cannot be read.
pub fn page(sources: &Sources<'_>) -> Result<Page> {
    let events = Events::read(sources.run)?;
    let scores = match sources.evals {
        [] => scores::of_run(sources.run)?,
        files => scores::with_kept(sources.run, scores::read(files)?)?,
    };
    let samples = completions::read(sources.run)?;
    let settings = settings::read(sources.run);
    let title = match sources.title {
        Some(title) => title.to_owned(),
        None => folder_name(sources.run),
    };
    let note = [origin(sources.run, &settings), summary(&events)].join("<br>\n");
    let mut body = tiles(&events, &scores);
    body.push_str(&curves::section(&events));
    body.push_str(&scores::section(&scores));
    body.push_str(&completions::section(&samples));
    body.push_str(&settings::section(&settings));
    let html = document(&title, "training report", &note, &body);
    Ok(Page { html, skipped_lines: events.skipped })
}

/// Model, data, commit and machine in one line, as far as they are known.
fn origin(run: &Path, settings: &[(String, String)]) -> String {
    let setting = |name: &str| {
        let (_, value) = settings.iter().find(|(of, _)| of == name)?;
        Some(format!("{name} <code>{}</code>", escape(value)))
    };
    let environment = environment(run);
    let environment = environment.iter().map(|(name, value)| format!("{name} {}", escape(value)));
    let parts: Vec<String> = ["model", "data"].iter().filter_map(|name| setting(name)).collect();
    parts.into_iter().chain(environment).collect::<Vec<_>>().join(" · ")
}

/// Steps, stages, tokens and time in one line.
fn summary(events: &Events) -> String {
    let mut parts = vec![format!("{} steps", events.steps.len())];
    if events.stages.len() > 1 {
        parts.push(format!("{} stages", events.stages.len()));
    }
    if let Some(tokens) = events.last("num_tokens") {
        parts.push(format!("{} tokens", count(tokens)));
    }
    let seconds: f64 = events.steps.values().filter_map(|metrics| metrics.get("step_time")).sum();
    if seconds > 0.0 {
        parts.push(format!("{} of training", duration(seconds)));
    }
    parts.join(" · ")
}

/// The headline metrics.
fn tiles(events: &Events, scores: &[Scores]) -> String {
    let mut html = String::from("<div class=\"tiles\">\n");
    match scores {
        [] => {}
        [only] => {
            tile("score", &format!("{:.1} %", only.result.overall), &escape(&only.name), &mut html)
        }
        [before, after, ..] => {
            let (before, after) = (before.result.overall, after.result.overall);
            let class = scores::direction(before, after);
            let detail = format!(
                "from {before:.1} %, <span class=\"{class}\">{:+.1} points</span>",
                after - before
            );
            tile("held-out score", &format!("{after:.1} %"), &detail, &mut html);
        }
    }
    for (label, metric) in [
        ("accuracy reward", ACCURACY),
        ("format reward", FORMAT),
        ("completion length", LENGTH),
        ("loss", "loss"),
    ] {
        if metric == "loss" && events.has("reward") {
            continue;
        }
        if let Some((first, last)) = ends(&curves::smooth(events, metric)) {
            tile(label, &number(last), &format!("from {}", number(first)), &mut html);
        }
    }
    if let Some((first, last)) = ends(&curves::smooth_consistency(events)) {
        let detail = format!("from {}", number(first));
        tile("consistency / accuracy", &number(last), &detail, &mut html);
    }
    html.push_str("</div>\n");
    let note = curves::window_note(events);
    if !note.is_empty() && events.has(ACCURACY) {
        let _ = writeln!(html, "<p class=\"note\">Training rewards and lengths: {note}</p>");
    }
    html
}

fn tile(label: &str, value: &str, detail: &str, html: &mut String) {
    let _ = writeln!(
        html,
        "<div class=\"card tile\"><div class=\"label\">{label}</div>\
         <div class=\"value\">{value}</div><div class=\"detail\">{detail}</div></div>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_shows_the_end_of_its_curve() {
        let run = tempfile::tempdir().unwrap();
        let line = |step: u32| {
            format!(
                "{{\"step\": {step}, \"rewards/accuracy/mean\": {}}}\n",
                f64::from(step) / 100.0
            )
        };
        let events: String = (1..=100).map(line).collect();
        std::fs::write(run.path().join("events.jsonl"), events).unwrap();
        let html = page(&Sources { run: run.path(), evals: &[], title: None }).unwrap().html;
        // The centered average over five steps has three at the ends.
        assert!(
            html.contains("<div class=\"value\">0.99</div><div class=\"detail\">from 0.02<"),
            "{html}"
        );
        assert!(html.contains(">0.99</text>"), "the curve's label");
        assert!(html.contains("Ends of the bold curves: moving averages over 5 steps."));
    }

    #[test]
    fn model_data_commit_and_machine_stand_at_the_top() {
        let run = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(run.path().join(name), text).unwrap();
        write("events.jsonl", "{\"step\": 1, \"reward\": 0.5}\n");
        write("settings.toml", "model = \"org/base\"\ndata = \"<train>.json\"\n");
        write(
            "environment.json",
            r#"{"version": "0.1.0", "commit": "0a1b", "machine": "Xeon, 2 cores"}"#,
        );
        let html = page(&Sources { run: run.path(), evals: &[], title: None }).unwrap().html;
        let top = html.split("<div class=\"tiles\">").next().unwrap();
        for text in [
            "model <code>org/base</code>",
            "data <code>&lt;train&gt;.json</code>",
            "commit 0a1b",
            "machine Xeon, 2 cores",
        ] {
            assert!(top.contains(text), "{text}: {top}");
        }
    }

    #[test]
    fn the_page_is_self_contained_and_shows_the_logged_metrics() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("a<b");
        std::fs::create_dir(&run).unwrap();
        let line = |step: u32| {
            format!(
                "{{\"step\": {step}, \"reward\": 0.5, \"rewards/accuracy/mean\": 0.{step}, \
                 \"rewards/format/mean\": 1, \"completions/mean_length\": 30, \"kl\": 0.01}}\n"
            )
        };
        std::fs::write(run.join("events.jsonl"), [line(1), line(2)].concat()).unwrap();
        let html = page(&Sources { run: &run, evals: &[], title: None }).unwrap().html;
        assert!(html.contains("<h1>a&lt;b</h1>"));
        assert!(html.contains("2 steps"));
        assert!(html.contains("rewards/accuracy/mean"));
        for outside in ["http://", "https://", "<script", "<link", "@import", "src="] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}
