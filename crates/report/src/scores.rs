//! Results of `embodied-r eval` side by side: before training, after, and others.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use embodied_r_files::write_json;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::html::escape;

/// The scores that earlier reports of a run were given, in its folder.
const KEPT: &str = "report_scores.json";

/// One result file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scores {
    /// The user's label, or a name derived from the file.
    pub(crate) name: String,
    pub(crate) result: EvalResult,
}

/// The fields used from the output of `embodied-r eval --json`. Scores are from 0 to 100.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EvalResult {
    #[serde(default)]
    pub(crate) protocol: String,
    #[serde(default)]
    pub(crate) n: u64,
    pub(crate) overall: f64,
    #[serde(default)]
    pub(crate) by_category: IndexMap<String, Category>,
}

/// One category's score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Category {
    pub(crate) score: f64,
    #[serde(default)]
    pub(crate) n: u64,
}

/// Reads result files given as `FILE` or `LABEL=FILE`.
pub(crate) fn read(named: &[String]) -> Result<Vec<Scores>> {
    let read = |named: &String| {
        let (label, path) = match named.split_once('=') {
            Some((label, path)) if !Path::new(named).exists() => (Some(label), Path::new(path)),
            _ => (None, Path::new(named)),
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        let result = serde_json::from_str(&text)
            .map_err(|source| Error::Scores { path: path.to_path_buf(), source })?;
        let name = label.map_or_else(|| name(path, &result), str::to_owned);
        Ok(Scores { name, result })
    };
    named.iter().map(read).collect()
}

/// Keeps the results in the files `named` for later reports of the run in `run`, beside those that it has.
///
/// # Errors
/// A file cannot be read, or the run's folder not be written.
pub fn keep_scores(run: &Path, named: &[String]) -> Result<()> {
    let kept = with_kept(run, read(named)?)?;
    write_json(&run.join(KEPT), &kept)?;
    Ok(())
}

/// The scores `first`, then those that earlier reports were given under other names.
pub(crate) fn with_kept(run: &Path, mut first: Vec<Scores>) -> Result<Vec<Scores>> {
    let path = run.join(KEPT);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(first),
        Err(source) => return Err(Error::Read { path, source }),
    };
    let kept: Vec<Scores> =
        serde_json::from_str(&text).map_err(|source| Error::Scores { path, source })?;
    let is_new = |scores: &Scores| first.iter().all(|other| other.name != scores.name);
    let kept: Vec<Scores> = kept.into_iter().filter(is_new).collect();
    first.extend(kept);
    Ok(first)
}

/// The scores of a run: those that earlier reports were given, then those in its folder.
pub(crate) fn of_run(run: &Path) -> Result<Vec<Scores>> {
    let mut all = with_kept(run, Vec::new())?;
    let found = find(run).into_iter();
    let found: Vec<Scores> =
        found.filter(|scores| all.iter().all(|other| other.name != scores.name)).collect();
    all.extend(found);
    Ok(all)
}

/// The result files in a run's folder, its `eval` folder and the folders in that, sorted by phase: before training
/// first.
fn find(run: &Path) -> Vec<Scores> {
    let eval = run.join("eval");
    let inner = files(&eval).into_iter().filter(|path| path.is_dir());
    let folders = [run.to_path_buf(), eval.clone()].into_iter().chain(inner);
    let mut found: Vec<_> = folders
        .flat_map(|folder| files(&folder))
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .filter_map(|path| {
            let text = std::fs::read_to_string(&path).ok()?;
            let result: EvalResult = serde_json::from_str(&text).ok()?;
            let name = name(&path, &result);
            (!result.by_category.is_empty()).then_some(Scores { name, result })
        })
        .collect();
    found.sort_by_key(|scores| (phase(&scores.name), scores.name.clone()));
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// A run's result after training: the last one named so, else the last one.
pub(crate) fn last(run: &Path) -> Result<Option<Scores>> {
    let mut found = of_run(run)?;
    let after = found.iter().rposition(|scores| phase(&scores.name) == 1);
    let last = after.or_else(|| found.len().checked_sub(1));
    Ok(last.map(|last| found.swap_remove(last)))
}

/// The phase of an evaluation, from its name: 0 before training, 1 after, 2 unknown, 3 control.
fn phase(name: &str) -> usize {
    let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match () {
        () if is(&["shuffl", "random", "blind"]) => 3,
        () if is(&["before", "start", "sft"]) => 0,
        () if is(&["after", "trained", "final"]) => 1,
        () => 2,
    }
}

/// The file's stem, or its folder's name if the file is named after the protocol.
fn name(path: &Path, result: &EvalResult) -> String {
    let stem = path.file_stem().unwrap_or_default();
    let folder = path.parent().and_then(Path::file_name);
    let name = if stem == result.protocol.as_str() { folder.unwrap_or(stem) } else { stem };
    name.to_string_lossy().into_owned()
}

/// The table, with the change from the first result to the second plotted for each category.
pub(crate) fn section(all: &[Scores]) -> String {
    let Some(first) = all.first() else {
        return String::new();
    };
    let second = all.get(1);
    let mut html = String::from("<section>\n<h2>Held-out scores</h2>\n");
    let _ = writeln!(
        html,
        "<p class=\"note\">protocol <code>{}</code>, {} questions, score in % \
         <span class=\"key\"></span>{}</p>",
        escape(&first.result.protocol),
        first.result.n,
        key(first, second)
    );
    html.push_str("<div class=\"card scroll\"><table>\n<thead><tr><th>category</th><th>n</th>");
    for (index, scores) in all.iter().enumerate() {
        let _ = write!(html, "<th>{}</th>", escape(&scores.name));
        if index == 1 {
            html.push_str("<th>change</th>");
        }
    }
    html.push_str("<th></th></tr></thead>\n<tbody>\n");
    for (name, category) in &first.result.by_category {
        let cells = all
            .iter()
            .map(|scores| scores.result.by_category.get(name).map(|category| category.score));
        html.push_str(&row("", &escape(name), category.n, &cells.collect::<Vec<_>>()));
    }
    let totals: Vec<_> = all.iter().map(|scores| Some(scores.result.overall)).collect();
    html.push_str(&row(" class=\"total\"", "overall", first.result.n, &totals));
    html.push_str("</tbody></table></div>\n</section>\n");
    html
}

/// A table of independent results, one column each.
pub(crate) fn side_by_side(all: &[Scores]) -> String {
    let Some(first) = all.first() else {
        return String::new();
    };
    let mut html = String::from("<section>\n<h2>Held-out scores</h2>\n");
    let _ = writeln!(
        html,
        "<p class=\"note\">protocol <code>{}</code>, {} questions, score in %</p>",
        escape(&first.result.protocol),
        first.result.n
    );
    html.push_str("<div class=\"card scroll\"><table>\n<thead><tr><th>category</th><th>n</th>");
    for scores in all {
        let _ = write!(html, "<th>{}</th>", escape(&scores.name));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let mut add = |class: &str, name: &str, n: u64, cells: Vec<Option<f64>>| {
        let _ = write!(html, "<tr{class}><td>{}</td><td>{n}</td>", escape(name));
        for cell in cells {
            let cell = cell.map_or_else(|| "–".to_owned(), |score| format!("{score:.1}"));
            let _ = write!(html, "<td>{cell}</td>");
        }
        html.push_str("</tr>\n");
    };
    for (name, category) in &first.result.by_category {
        let cells = all.iter().map(|of| of.result.by_category.get(name).map(|found| found.score));
        add("", name, category.n, cells.collect());
    }
    let totals = all.iter().map(|scores| Some(scores.result.overall)).collect();
    add(" class=\"total\"", "overall", first.result.n, totals);
    html.push_str("</tbody></table></div>\n</section>\n");
    html
}

fn key(first: &Scores, second: Option<&Scores>) -> String {
    let Some(second) = second else {
        return format!("<span class=\"key\"><i></i>{}</span>", escape(&first.name));
    };
    format!(
        "<span class=\"key\"><i class=\"hollow\"></i>{}</span><span class=\"key\"><i></i>{}</span>",
        escape(&first.name),
        escape(&second.name)
    )
}

fn row(class: &str, name: &str, n: u64, cells: &[Option<f64>]) -> String {
    let mut html = format!("<tr{class}><td>{name}</td><td>{n}</td>");
    for (index, cell) in cells.iter().enumerate() {
        match cell {
            Some(score) => _ = write!(html, "<td>{score:.1}</td>"),
            None => html.push_str("<td>–</td>"),
        }
        if index == 1 {
            html.push_str(&change(cells[0], cells[1]));
        }
    }
    let _ = writeln!(html, "<td class=\"plot\">{}</td></tr>", change_plot(cells));
    html
}

fn change(before: Option<f64>, after: Option<f64>) -> String {
    let (Some(before), Some(after)) = (before, after) else {
        return "<td>–</td>".to_owned();
    };
    format!("<td class=\"{}\">{:+.1}</td>", direction(before, after), after - before)
}

/// The CSS class of a change after rounding to one decimal.
pub(crate) fn direction(before: f64, after: f64) -> &'static str {
    match after - before {
        change if change >= 0.05 => "up",
        change if change <= -0.05 => "down",
        _ => "same",
    }
}

/// A scale from 0 to 100 with the first score as a ring and the second as a dot.
fn change_plot(cells: &[Option<f64>]) -> String {
    let mut svg = String::from(
        "<svg class=\"span\" aria-hidden=\"true\"><line class=\"rail\" x1=\"0\" x2=\"100%\" \
         y1=\"9\" y2=\"9\"/>",
    );
    let at = |score: f64| format!("{:.1}%", score.clamp(0.0, 100.0));
    let (first, second) = (cells.first().copied().flatten(), cells.get(1).copied().flatten());
    if let (Some(before), Some(after)) = (first, second) {
        let _ = write!(
            svg,
            "<line class=\"way\" x1=\"{}\" x2=\"{}\" y1=\"9\" y2=\"9\"/>\
             <circle class=\"from\" cx=\"{}\" cy=\"9\" r=\"4.5\"/>",
            at(before),
            at(after),
            at(before)
        );
    }
    if let Some(score) = second.or(first) {
        let _ = write!(svg, "<circle class=\"to\" cx=\"{}\" cy=\"9\" r=\"5.5\"/>", at(score));
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(overall: f64, category: &str) -> String {
        format!(
            r#"{{"protocol": "embodied-r", "n": 300, "overall": {overall}, "micro": 1, "macro": 2,
                 "by_category": {{"{category}": {{"score": {overall}, "n": 300}}}}}}"#
        )
    }

    #[test]
    fn results_are_sorted_by_phase_and_other_json_is_ignored() {
        let run = tempfile::tempdir().unwrap();
        let eval = run.path().join("eval");
        std::fs::create_dir(&eval).unwrap();
        for (name, text) in [
            ("after.json", result(60.0, "a")),
            ("shuffled-after.json", result(25.0, "a")),
            ("before.json", result(40.0, "a")),
            ("config.json", "{}".to_owned()),
        ] {
            std::fs::write(eval.join(name), text).unwrap();
        }
        let names: Vec<_> = find(run.path()).into_iter().map(|scores| scores.name).collect();
        assert_eq!(names, ["before", "after", "shuffled-after"]);
    }

    #[test]
    fn scores_that_a_report_was_given_stay_with_the_run() {
        let run = tempfile::tempdir().unwrap();
        let given = |name: &str, overall: f64| {
            let path = run.path().join(format!("{name}.txt"));
            std::fs::write(&path, result(overall, "a")).unwrap();
            format!("{name}={}", path.display())
        };
        let shown = || -> Vec<(String, f64)> {
            let all = of_run(run.path()).unwrap().into_iter();
            all.map(|scores| (scores.name, scores.result.overall)).collect()
        };
        keep_scores(run.path(), &[given("start", 40.0), given("trained", 60.0)]).unwrap();
        assert_eq!(shown(), [("start".to_owned(), 40.0), ("trained".to_owned(), 60.0)]);
        keep_scores(run.path(), &[given("trained", 61.0)]).unwrap();
        assert_eq!(shown(), [("trained".to_owned(), 61.0), ("start".to_owned(), 40.0)]);
        assert_eq!(last(run.path()).unwrap().unwrap().name, "trained");
    }

    #[test]
    fn a_result_is_named_after_its_label_or_its_file_or_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, result(1.0, "a")).unwrap();
            path.display().to_string()
        };
        let named = [
            format!("cold start={}", write("a.json")),
            write("b.json"),
            write("trained/embodied-r.json"),
        ];
        let names: Vec<_> = read(&named).unwrap().into_iter().map(|scores| scores.name).collect();
        assert_eq!(names, ["cold start", "b", "trained"]);
    }

    #[test]
    fn the_table_shows_the_change_of_each_category() {
        let scores = |name: &str, overall| Scores {
            name: name.to_owned(),
            result: serde_json::from_str(&result(overall, "<b>")).unwrap(),
        };
        let html = section(&[scores("before", 40.0), scores("after", 62.5)]);
        assert!(html.contains("<td>&lt;b&gt;</td><td>300</td><td>40.0</td><td>62.5</td><td class=\"up\">+22.5</td>"), "{html}");
    }

    #[test]
    fn a_file_that_is_not_a_result_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        std::fs::write(&path, "{}").unwrap();
        let error = read(&[path.display().to_string()]).unwrap_err();
        assert!(error.to_string().contains("x.json"), "{error}");
    }
}
