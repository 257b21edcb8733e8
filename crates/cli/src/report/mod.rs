//! A run as one self-contained HTML page: curves, scores, completions, settings. Several runs are compared on one page.

mod chart;
pub(crate) mod compare;
mod completions;
mod consistency;
mod curves;
mod events;
mod figure;
mod html;
mod overlay;
pub(crate) mod samples;
mod scores;
mod settings;

use std::fmt::Write as _;
use std::path::Path;

use chart::{Point, mean, number};
use events::Events;
pub(crate) use figure::figure;
pub(crate) use html::escape;
use scores::Scores;

const STYLE: &str = include_str!("style.css");

/// The inputs of a page.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// Folder of the run, with its `events.jsonl`.
    pub(crate) run: &'a Path,
    /// Results of `embodied-r eval` as `FILE` or `LABEL=FILE`; the first two are before and after training.
    /// If empty, those in the run's folder.
    pub(crate) evals: &'a [String],
    /// Heading of the page; by default the folder's name.
    pub(crate) title: Option<&'a str>,
}

/// A rendered page.
#[derive(Debug)]
pub(crate) struct Page {
    /// The whole document.
    pub(crate) html: String,
    /// Lines of `events.jsonl` that could not be parsed.
    pub(crate) skipped_lines: usize,
}

/// Reads a run and renders its page.
pub(crate) fn page(sources: &Sources<'_>) -> anyhow::Result<Page> {
    let events = Events::read(sources.run)?;
    let scores = match sources.evals {
        [] => scores::find(sources.run),
        files => scores::read(files)?,
    };
    let samples = completions::read(sources.run)?;
    let settings = settings::read(sources.run);
    let title = match sources.title {
        Some(title) => title.to_owned(),
        None => folder_name(sources.run),
    };
    let mut body = tiles(&events, &scores);
    body.push_str(&curves::section(&events));
    body.push_str(&scores::section(&scores));
    body.push_str(&completions::section(&samples));
    body.push_str(&settings::section(&settings));
    let html = document(&title, "training report", &summary(&events), &body);
    Ok(Page { html, skipped_lines: events.skipped })
}

/// The HTML document: title, kind of page, a one-line summary, and the sections.
fn document(title: &str, kind: &str, note: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0} · embodied-r</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <p class=\"eyebrow\">embodied-r · {kind}</p>\n<h1>{0}</h1>\n\
         <p class=\"note\">{note}</p>\n{body}\
         <footer>Written by embodied-r {version}.</footer>\n</main>\n</body>\n</html>\n",
        escape(title),
        version = env!("CARGO_PKG_VERSION")
    )
}

fn folder_name(run: &Path) -> String {
    let absolute = std::path::absolute(run).unwrap_or_else(|_| run.to_path_buf());
    absolute
        .file_name()
        .map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
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

/// A number with an SI suffix.
fn count(value: f64) -> String {
    let sizes = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match sizes.iter().find(|(size, _)| value >= *size) {
        Some((size, letter)) => format!("{} {letter}", number(value / size)),
        None => number(value),
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
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
        ("accuracy reward", curves::ACCURACY),
        ("format reward", curves::FORMAT),
        ("completion length", curves::LENGTH),
        ("loss", "loss"),
    ] {
        if metric == "loss" && events.has("reward") {
            continue;
        }
        if let Some((first, last)) = ends(&events.series(metric)) {
            tile(label, &number(last), &format!("from {}", number(first)), &mut html);
        }
    }
    if let Some((first, last)) = ends(&consistency::rate(&consistency::steps(events), 1)) {
        let detail = format!("from {}", number(first));
        tile("consistency / accuracy", &number(last), &detail, &mut html);
    }
    html.push_str("</div>\n");
    html
}

fn tile(label: &str, value: &str, detail: &str, html: &mut String) {
    let _ = writeln!(
        html,
        "<div class=\"card tile\"><div class=\"label\">{label}</div>\
         <div class=\"value\">{value}</div><div class=\"detail\">{detail}</div></div>"
    );
}

/// Means over the first and the last 5 % of a curve.
fn ends(points: &[Point]) -> Option<(f64, f64)> {
    let values: Vec<_> = points.iter().filter_map(|(_, value)| *value).collect();
    let few = values.len().div_ceil(20);
    let first = mean(values[..few].iter().copied())?;
    Some((first, mean(values[values.len() - few..].iter().copied())?))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_ends_of_a_curve_are_means_over_five_percent() {
        let points: Vec<_> = (0..40).map(|step| (f64::from(step), Some(f64::from(step)))).collect();
        assert_eq!(ends(&points), Some((0.5, 38.5)));
        assert_eq!(ends(&[(0.0, None)]), None);
    }

    #[test]
    fn counts_are_short() {
        assert_eq!([950.0, 1234.0, 12_700_000.0].map(count), ["950", "1.23 k", "12.7 M"]);
    }

    #[test]
    fn durations_are_shown_in_the_two_largest_units() {
        assert_eq!([59.6, 3.0, 7322.0].map(duration), ["1 min 0 s", "3 s", "2 h 2 min"]);
    }
}
