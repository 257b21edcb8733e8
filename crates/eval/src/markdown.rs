//! Markdown reports with published results for comparison.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::benchmark::{Benchmark, Mean};
use crate::folds::FoldedReport;
use crate::published::PublishedTable;
use crate::report::{PassAt, Report};

/// The report as two tables: its scores by category, followed by warnings about missing and skipped
/// questions, and a comparison with published results.
///
/// `name` labels the report's row, such as a model's name.
pub fn markdown(report: &Report, name: &str) -> String {
    let mut text = heading(report);
    category_scores(&mut text, report);
    remarks(&mut text, report.provenance().into_iter().chain(report.warnings()));
    comparison(&mut text, report, name);
    text
}

/// As [`markdown()`], with the mean over folds, the standard deviation and every fold in the first table; the comparison
/// has the mean.
pub fn folded_markdown(report: &FoldedReport, name: &str) -> String {
    let mut text = heading(&report.mean);
    fold_scores(&mut text, report);
    remarks(&mut text, report.mean.provenance().into_iter().chain(report.warnings()));
    comparison(&mut text, &report.mean, name);
    text
}

/// The scores of one question set by several scorers of `benchmark`: a column each, and what each one can be compared with.
pub fn scorers_markdown(benchmark: &Benchmark, reports: &[&Report]) -> String {
    let mut text = format!("# {}\n\n", benchmark.name);
    let Some(first) = reports.first() else { return text };
    let row = |name: &str, n: usize, of: &dyn Fn(&Report) -> Option<f64>| {
        let mut cells = vec![name.to_owned(), n.to_string()];
        cells.extend(reports.iter().map(|report| score(of(report))));
        cells
    };
    let categories = first.by_category.iter();
    let mut rows: Vec<Vec<String>> = categories
        .map(|category| {
            let of = |report: &Report| report.category(&category.name).map(|of| of.score);
            row(&category.name, category.n, &of)
        })
        .collect();
    rows.push(row("overall", first.n, &|report| Some(report.overall)));
    let mut header = ["category", "questions"].map(str::to_owned).to_vec();
    header.extend(reports.iter().map(|report| report.protocol.scorer.name.to_owned()));
    table(&mut text, &header, &rows);
    let mut all: Vec<String> = Vec::new();
    for remark in
        reports.iter().flat_map(|report| [report.provenance(), report.warnings()]).flatten()
    {
        if !all.contains(&remark) {
            all.push(remark);
        }
    }
    remarks(&mut text, all.into_iter());
    text
}

fn heading(report: &Report) -> String {
    format!("# {}\n\n", report.protocol.benchmark.name)
}

fn remarks(text: &mut String, remarks: impl Iterator<Item = String>) {
    for remark in remarks {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- {remark}");
    }
    text.push('\n');
}

/// The label of a mean's row.
fn mean_label(report: &Report, kind: Mean) -> String {
    let label = match kind {
        Mean::Micro => "mean over questions",
        Mean::Macro => "mean over categories",
        Mean::Groups => "groups all of whose questions are right",
    };
    match kind == report.protocol.scorer.overall {
        true => format!("{label} (overall)"),
        false => label.to_owned(),
    }
}

fn fold_scores(text: &mut String, report: &FoldedReport) {
    let FoldedReport { mean, std, folds } = report;
    let _ = writeln!(
        text,
        "{} folds. Scores are means over folds, ± the sample standard deviation over folds.\n",
        folds.len()
    );
    let row = |label: String,
               n: usize,
               mean: f64,
               std: Option<f64>,
               of: &dyn Fn(&Report) -> Option<f64>| {
        let mut cells = vec![label, n.to_string(), score(Some(mean)), score(std)];
        cells.extend(folds.iter().map(|fold| score(of(fold))));
        cells
    };
    let mut rows: Vec<Vec<String>> = mean
        .by_category
        .iter()
        .map(|category| {
            let std = std.by_category.get(&category.name).copied().flatten();
            row(category.name.clone(), category.n, category.score, std, &|fold| {
                fold.category(&category.name).map(|category| category.score)
            })
        })
        .collect();
    let micro = mean_label(mean, Mean::Micro);
    rows.push(row(micro, mean.n, mean.micro, Some(std.micro), &|fold| Some(fold.micro)));
    let macro_ = mean_label(mean, Mean::Macro);
    rows.push(row(macro_, mean.n, mean.macro_, Some(std.macro_), &|fold| Some(fold.macro_)));
    for (k, value) in mean.pass_at.iter().flat_map(|of| &of.overall) {
        rows.push(row(format!("pass@{k}"), mean.n, *value, std.pass_at.get(k).copied(), &|fold| {
            fold.pass_at.as_ref()?.overall.get(k).copied()
        }));
    }
    let mut header = ["category", "questions", "score", "±"].map(str::to_owned).to_vec();
    header.extend((0..folds.len()).map(|fold| format!("fold {fold}")));
    table(text, &header, &rows);
}

fn category_scores(text: &mut String, report: &Report) {
    if let Some(PassAt { samples, temperature, .. }) = &report.pass_at {
        let temperature = temperature.map(|t| format!(" at temperature {t}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{samples} samples per question{temperature}. Scores are means over samples; pass@k is a mean over \
             questions.\n"
        );
    }
    let ks: Vec<usize> = report.pass_at.iter().flat_map(|of| of.overall.keys().copied()).collect();
    let row = |label: String, n: usize, value: f64, pass_at: Option<&BTreeMap<usize, f64>>| {
        let mut cells = vec![label, n.to_string(), score(Some(value))];
        cells.extend(ks.iter().map(|k| score(pass_at.and_then(|of| of.get(k)).copied())));
        cells
    };
    let mut rows: Vec<Vec<String>> = report
        .by_category
        .iter()
        .map(|category| {
            row(category.name.clone(), category.n, category.score, Some(&category.pass_at))
        })
        .collect();
    let pass_at = report.pass_at.as_ref().map(|of| &of.overall);
    for (kind, value, pass_at) in
        [(Mean::Micro, report.micro, pass_at), (Mean::Macro, report.macro_, None)]
    {
        rows.push(row(mean_label(report, kind), report.n, value, pass_at));
    }
    if report.protocol.scorer.overall == Mean::Groups {
        rows.push(row(mean_label(report, Mean::Groups), report.n, report.overall, None));
    }
    let mut header = ["category", "questions", "score"].map(str::to_owned).to_vec();
    header.extend(ks.iter().map(|k| format!("pass@{k}")));
    table(text, &header, &rows);
}

fn comparison(text: &mut String, report: &Report, name: &str) {
    let Some(published) = report.protocol.benchmark.published else { return };
    let mut header = vec!["model".to_owned(), "overall".to_owned()];
    header.extend(published.categories.iter().map(|&category| category.to_owned()));

    // Published rows are over all questions.
    let part = match report.protocol.benchmark.size.filter(|_| report.is_partial()) {
        Some(size) => format!(" ({} of {size} questions)", report.n),
        None => String::new(),
    };
    let mut own = vec![format!("**{}**{part}", escaped(name)), score(Some(report.overall))];
    own.extend(
        published
            .categories
            .iter()
            .map(|category| score(report.category(category).map(|category| category.score))),
    );
    let mut rows = vec![own];
    rows.extend(published_rows(published));
    table(text, &header, &rows);
    let PublishedTable { source, caveat, .. } = published;
    let _ = writeln!(text, "Published rows: {source}. Note: {caveat}.");
}

fn published_rows(table: &PublishedTable) -> impl Iterator<Item = Vec<String>> {
    table.rows.iter().map(|row| {
        let model = match row.harness {
            "" => row.model.to_owned(),
            harness => format!("{}, {harness}", row.model),
        };
        let mut cells = vec![model, score(row.overall)];
        cells.extend((0..table.categories.len()).map(|index| score(row.score(index))));
        cells
    })
}

fn score(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A Markdown table with the first column left-aligned and the others right-aligned.
fn table(text: &mut String, header: &[String], rows: &[Vec<String>]) {
    let width = |index: usize| {
        let cells = rows.iter().map(|row| &row[index]).chain([&header[index]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |text: &mut String, cells: &[String]| {
        for (index, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let _ = match index {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
    };
    line(text, header);
    let rules: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(index, &width)| match index {
            0 => "-".repeat(width),
            _ => format!("{}:", "-".repeat(width - 1)),
        })
        .collect();
    line(text, &rules);
    for row in rows {
        line(text, row);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::{Prediction, PredictionOutput};
    use crate::protocol::{all_protocols, named};
    use crate::{Protocol, SampledQuestion, score as score_all, score_samples};

    fn report(protocol: Protocol, answers: &[(&str, Option<&str>)]) -> Report {
        let predictions: Vec<Prediction> = answers
            .iter()
            .map(|&(category, answer)| Prediction {
                id: "1".to_owned(),
                category: category.to_owned(),
                solution: "B".to_owned(),
                output: answer.map_or(PredictionOutput::Missing, |text| {
                    PredictionOutput::Answer(text.to_owned())
                }),
                ..Prediction::default()
            })
            .collect();
        score_all(protocol, &predictions).unwrap()
    }

    #[test]
    fn category_scores_come_first_with_both_means() {
        let report = report(
            named("embodied-r"),
            &[
                ("Counterfactual", Some("B")),
                ("Counterfactual", Some("A")),
                ("route_planning", None),
            ],
        );
        let text = markdown(&report, "a|b");
        let own = text.split("\n\n").nth(1).unwrap();
        assert_eq!(
            own,
            "| category                      | questions | score |\n\
             | ----------------------------- | --------: | ----: |\n\
             | Counterfactual                |         2 |  50.0 |\n\
             | route_planning                |         1 |   0.0 |\n\
             | mean over questions (overall) |         3 |  33.3 |\n\
             | mean over categories          |         3 |  25.0 |"
        );
        assert!(text.contains("\n- 1 question without a prediction: counted as wrong\n"));
    }

    #[test]
    fn pass_at_k_has_a_column_for_each_k() {
        let sampled = |category: &str, samples: [&str; 2]| SampledQuestion {
            id: "1".to_owned(),
            video: None,
            category: category.to_owned(),
            solution: "B".to_owned(),
            answer_type: None,
            columns: Default::default(),
            prompt: None,
            question: String::new(),
            samples: samples.map(|answer| format!("<answer>{answer}</answer>")).to_vec(),
        };
        let questions =
            [sampled("Counterfactual", ["A", "B"]), sampled("route_planning", ["A", "A"])];
        let report = score_samples(named("embodied-r"), &questions, &[1, 2], Some(0.8)).unwrap();
        let text = markdown(&report, "ours");
        let paragraphs: Vec<&str> = text.split("\n\n").collect();
        assert!(paragraphs[1].starts_with("2 samples per question at temperature 0.8. "));
        assert_eq!(
            paragraphs[2],
            "| category                      | questions | score | pass@1 | pass@2 |\n\
             | ----------------------------- | --------: | ----: | -----: | -----: |\n\
             | Counterfactual                |         1 |  50.0 |   50.0 |  100.0 |\n\
             | route_planning                |         1 |   0.0 |    0.0 |    0.0 |\n\
             | mean over questions (overall) |         2 |  25.0 |   25.0 |   50.0 |\n\
             | mean over categories          |         2 |  25.0 |      – |      – |"
        );
    }

    #[test]
    fn folds_have_a_column_each_beside_their_mean_and_spread() {
        let fold = |answer| {
            report(
                named("embodied-r"),
                &[("Counterfactual", Some(answer)), ("route_planning", Some("B"))],
            )
        };
        let folded = FoldedReport::new(vec![fold("B"), fold("A")]).unwrap();
        let text = folded_markdown(&folded, "ours");
        let paragraphs: Vec<&str> = text.split("\n\n").collect();
        assert!(paragraphs[1].starts_with("2 folds. "), "{text}");
        assert_eq!(
            paragraphs[2],
            "| category                      | questions | score |    ± | fold 0 | fold 1 |\n\
             | ----------------------------- | --------: | ----: | ---: | -----: | -----: |\n\
             | Counterfactual                |         2 |  50.0 | 70.7 |  100.0 |    0.0 |\n\
             | route_planning                |         2 | 100.0 |  0.0 |  100.0 |  100.0 |\n\
             | mean over questions (overall) |         4 |  75.0 | 35.4 |  100.0 |   50.0 |\n\
             | mean over categories          |         4 |  75.0 | 35.4 |  100.0 |   50.0 |"
        );
        assert!(text.contains("| **ours** (4 of 5464 questions) "), "{text}");
    }

    #[test]
    fn the_reports_row_is_above_the_published_ones_in_their_columns() {
        let report = report(named("urbanvideo-bench"), &[("Progress Evaluation", Some("B"))]);
        let text = markdown(&report, "a|b");
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip_while(|line| !line.starts_with("| model"))
            .filter(|line| line.starts_with('|'))
            .map(|line| line.split(" |").map(|cell| cell.trim_start_matches('|').trim()).collect())
            .collect();
        assert_eq!(
            rows[0][1..5],
            ["overall", "Landmark Position", "Counterfactual", "Progress Evaluation"]
        );
        assert_eq!(rows[2][..5], ["**a\\|b** (1 of 5355 questions)", "100.0", "–", "–", "100.0"]);
        assert_eq!(rows[3][..3], ["Random", "19.7", "19.7"]);
        let published = named("urbanvideo-bench").benchmark.published.unwrap();
        assert_eq!(rows.len(), 3 + published.rows.len());
    }

    #[test]
    fn the_sources_are_cited() {
        // The others need a mask.
        let has_letters =
            |it: &Protocol| it.benchmark.name != "where2place" && it.benchmark.name != "refspatial";
        for protocol in all_protocols().into_iter().filter(has_letters) {
            let category = protocol.benchmark.category_names().last().copied().unwrap_or("any");
            let text = markdown(&report(protocol, &[(category, Some("B"))]), "ours");
            match protocol.benchmark.published {
                Some(table) => assert!(text.contains(table.source)),
                None => assert!(!text.contains("Published rows")),
            }
        }
    }

    #[test]
    fn questions_about_robots_are_reported_by_kind() {
        let answers = [("state", Some("B")), ("waypoint", Some("A")), ("waypoint", Some("[[B]]"))];
        let report = report(named("robot-r1"), &answers);
        assert_eq!(
            markdown(&report, "ours"),
            "# robot-r1\n\n\
             | category                      | questions | score |\n\
             | ----------------------------- | --------: | ----: |\n\
             | waypoint                      |         2 |  50.0 |\n\
             | state                         |         1 | 100.0 |\n\
             | mean over questions (overall) |         3 |  66.7 |\n\
             | mean over categories          |         3 |  75.0 |\n\n\
             - scorer: official, comparable with no other harness: the letter is read by this program's rules\n\
             - the macro mean is over 2 of 3 categories; without questions: movement\n\n"
        );
        assert!(!report.is_partial());
    }
}
