//! Sample completions of a run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use embodied_r_data::prompts::question_part;

use crate::chart::number;
use crate::error::Result;
use crate::html::escape;
use crate::samples::{self, Sample};

/// Steps shown: the first, the middle and the last one.
const STEPS: usize = 3;
/// Completions shown per step.
const PER_STEP: usize = 4;
/// Maximum characters of a text.
const MAX_CHARS: usize = 6000;
/// Numeric columns that are not 0-to-1 rewards, and so are not colored.
const NEUTRAL: [&str; 3] = ["length", "reward", "advantage"];

/// The sort key of a step's samples: the reward, else the advantage, else the sum of all scores.
fn sort_key(sample: &Sample) -> f64 {
    let known = sample.score("reward").or_else(|| sample.score("advantage"));
    known.unwrap_or_else(|| sample.scores.iter().map(|(_, value)| value).sum())
}

/// Reads completions of the run's first, middle and last step; empty if the run logged none.
pub(crate) fn read(run: &Path) -> Result<Vec<Sample>> {
    let files = samples::files(run);
    let mut samples = Vec::new();
    for path in evenly_spaced(&files, STEPS) {
        samples.extend(samples::read(path)?);
    }
    let steps: BTreeSet<_> = samples.iter().map(|sample| sample.step).collect();
    let steps: Vec<_> = steps.into_iter().collect();
    let mut chosen = Vec::new();
    for step in evenly_spaced(&steps, STEPS) {
        let mut of_step: Vec<_> = samples.iter().filter(|sample| sample.step == *step).collect();
        of_step.sort_by(|a, b| sort_key(b).total_cmp(&sort_key(a)));
        chosen.extend(evenly_spaced(&of_step, PER_STEP).into_iter().copied().cloned());
    }
    Ok(chosen)
}

/// At most `count` evenly spaced items, including the first and the last.
fn evenly_spaced<T>(items: &[T], count: usize) -> Vec<&T> {
    if items.len() <= count {
        return items.iter().collect();
    }
    (0..count).map(|index| &items[index * (items.len() - 1) / (count - 1)]).collect()
}

/// The samples as cards, grouped by step.
pub(crate) fn section(samples: &[Sample]) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<section>\n<h2>Sample completions</h2>\n<p class=\"note\">Sorted from best to worst, at \
         the start, middle and end of the run.</p>\n",
    );
    for of_step in samples.chunk_by(|a, b| a.step == b.step) {
        let _ = writeln!(
            html,
            "<p class=\"moment\">step {}</p>\n<div class=\"grid\">",
            of_step[0].step
        );
        of_step.iter().for_each(|sample| card(sample, &mut html));
        html.push_str("</div>\n");
    }
    html.push_str("</section>\n");
    html
}

fn card(sample: &Sample, html: &mut String) {
    html.push_str("<article class=\"card completion\">\n<div class=\"chips\">");
    if !sample.solution.is_empty() {
        let _ = write!(html, "<span class=\"chip\">solution {}</span>", escape(&sample.solution));
    }
    for (name, value) in &sample.scores {
        let class = match *value {
            _ if NEUTRAL.contains(&name.as_str()) => "chip",
            1.0 => "chip good",
            0.0 => "chip poor",
            _ => "chip",
        };
        let _ = write!(html, "<span class=\"{class}\">{} {}</span>", escape(name), number(*value));
    }
    html.push_str("</div>\n");
    let question = question_part(&sample.prompt);
    let _ = writeln!(html, "<div class=\"question\">{}</div>", escape(&truncated(question)));
    if let Some(drawn) = &sample.drawn {
        html.push_str(&drawn.figure(&sample.solution, &sample.completion, Path::new("")));
    }
    let _ =
        writeln!(html, "<div class=\"output\">{}</div>", marked(&truncated(&sample.completion)));
    for (reward, reason) in &sample.reasons {
        let (reward, reason) = (escape(reward), escape(reason));
        let _ = writeln!(html, "<div class=\"reason\">{reward}: {reason}</div>");
    }
    if question.len() < sample.prompt.len() {
        let _ = writeln!(
            html,
            "<details><summary>full prompt</summary><div class=\"question\">{}</div></details>",
            escape(&truncated(&sample.prompt))
        );
    }
    html.push_str("</article>\n");
}

/// `text` trimmed, and truncated with an ellipsis if very long.
fn truncated(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

/// Escaped text with highlighted think and answer tags.
fn marked(text: &str) -> String {
    ["think", "/think", "answer", "/answer"].iter().fold(escape(text), |text, tag| {
        let tag = format!("&lt;{tag}&gt;");
        text.replace(&tag, &format!("<span class=\"tag\">{tag}</span>"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_data::parquet::{Column, write_table};

    fn write(run: &Path, name: &str, columns: Vec<(&str, Column)>) {
        let folder = run.join("completions");
        std::fs::create_dir_all(&folder).unwrap();
        write_table(&folder.join(name), columns).unwrap();
    }

    fn text(text: &str, rows: usize) -> Column {
        Column::Strings(vec![text.to_owned(); rows])
    }

    #[test]
    fn first_middle_and_last_step_are_shown_from_best_to_worst() {
        let run = tempfile::tempdir().unwrap();
        for step in 0..9i64 {
            let columns = vec![
                ("step", Column::Integers(vec![step; 8])),
                ("prompt", text("Question: ?", 8)),
                ("completion", text("x", 8)),
                ("reward", Column::Floats((0..8).map(f64::from).collect())),
            ];
            write(run.path(), &format!("{step:05}.parquet"), columns);
        }
        let samples = read(run.path()).unwrap();
        let steps: Vec<_> = samples.iter().map(|sample| sample.step).collect();
        assert_eq!(steps, [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8]);
        let rewards: Vec<_> = samples[..4].iter().map(sort_key).collect();
        assert_eq!(rewards, [7.0, 5.0, 3.0, 0.0]);
    }

    #[test]
    fn a_run_without_completions_has_no_section() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(read(run.path()).unwrap(), []);
        assert_eq!(section(&[]), "");
    }

    #[test]
    fn markup_in_a_completion_is_escaped_and_its_tags_are_highlighted() {
        let sample = Sample {
            step: 1,
            prompt: "<b>Question: x".to_owned(),
            completion: "<think><img src=x onerror=alert(1)></think>".to_owned(),
            solution: "<s>".to_owned(),
            scores: vec![("<i>".to_owned(), 1.0)],
            reasons: vec![("<u>".to_owned(), "<q>".to_owned())],
            ..Sample::default()
        };
        let html = section(&[sample]);
        for tag in ["<img", "<b>", "<i>", "<s>", "<u>", "<q>"] {
            assert!(!html.contains(tag), "{tag} in {html}");
        }
        assert!(html.contains("<span class=\"tag\">&lt;think&gt;</span>&lt;img"), "{html}");
    }

    #[test]
    fn very_long_text_is_truncated_at_a_character() {
        let text = "é".repeat(MAX_CHARS + 1);
        assert_eq!(truncated(&text).chars().count(), MAX_CHARS + 2);
    }
}
