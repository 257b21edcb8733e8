//! A report as Markdown, beside the published rows.

use std::fmt::Write as _;

use crate::protocol::Mean;
use crate::published::{self, Table};
use crate::report::Report;

/// The report in two tables: its own scores by category, and its row above the published ones.
/// Remarks on what was missing or left out follow the first.
///
/// `name` is what the report's own row is called, such as a model's name.
pub fn markdown(report: &Report, name: &str) -> String {
    let mut text = format!("# {}\n\n", report.protocol.name());
    own_scores(&mut text, report);
    for remark in report.remarks() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- {remark}");
    }
    if !report.remarks().is_empty() {
        text.push('\n');
    }
    beside_published(&mut text, report, name);
    text
}

fn own_scores(text: &mut String, report: &Report) {
    let mut rows: Vec<Vec<String>> = report
        .by_category
        .iter()
        .map(|category| {
            vec![category.name.to_owned(), category.n.to_string(), score(Some(category.score))]
        })
        .collect();
    let mean = |kind: Mean| match kind == report.protocol.overall() {
        true => "(overall)",
        false => "",
    };
    for (kind, label, value) in [
        (Mean::Micro, "mean over questions", report.micro),
        (Mean::Macro, "mean over categories", report.macro_),
    ] {
        let label = format!("{label} {}", mean(kind));
        rows.push(vec![label.trim_end().to_owned(), report.n.to_string(), score(Some(value))]);
    }
    table(text, &["category", "questions", "score"].map(str::to_owned), &rows);
}

fn beside_published(text: &mut String, report: &Report, name: &str) {
    let published = published::table(report.protocol);
    let mut header = vec!["model".to_owned(), "overall".to_owned()];
    header.extend(published.categories.iter().map(|&category| category.to_owned()));

    let mut own = vec![format!("**{}**", escaped(name)), score(Some(report.overall))];
    own.extend(
        published
            .categories
            .iter()
            .map(|category| score(report.category(category).map(|category| category.score))),
    );
    let mut rows = vec![own];
    rows.extend(published_rows(published));
    table(text, &header, &rows);
    let Table { source, caveat, .. } = published;
    let _ = writeln!(text, "Published rows: {source}. Note: {caveat}.");
}

fn published_rows(table: &Table) -> impl Iterator<Item = Vec<String>> {
    table.rows.iter().map(|row| {
        let mut cells = vec![row.model.to_owned(), score(row.overall)];
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

/// A Markdown table with aligned columns: the first to the left, the others to the right.
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
    use crate::predictions::{Output, Prediction};
    use crate::{Protocol, score as score_all};

    fn report(protocol: Protocol, answers: &[(&str, Option<&str>)]) -> Report {
        let predictions: Vec<Prediction> = answers
            .iter()
            .map(|&(category, answer)| Prediction {
                id: "1".to_owned(),
                category: category.to_owned(),
                solution: "B".to_owned(),
                output: answer.map_or(Output::Missing, |text| Output::Answer(text.to_owned())),
            })
            .collect();
        score_all(protocol, &predictions).unwrap()
    }

    #[test]
    fn the_own_scores_come_first_with_both_means() {
        let report = report(
            Protocol::EmbodiedR,
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
    fn the_own_row_stands_above_the_published_ones_in_their_columns() {
        let report = report(Protocol::UrbanVideoBench, &[("Progress Evaluation", Some("B"))]);
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
        assert_eq!(rows[2][..5], ["**a\\|b**", "100.0", "–", "–", "100.0"]);
        assert_eq!(rows[3][..3], ["Random", "19.7", "19.7"]);
        assert_eq!(rows.len(), 3 + published::table(Protocol::UrbanVideoBench).rows.len());
    }

    #[test]
    fn the_sources_are_named() {
        for protocol in Protocol::ALL {
            let category = *protocol.categories().last().unwrap();
            let text = markdown(&report(protocol, &[(category, Some("B"))]), "ours");
            assert!(text.contains(published::table(protocol).source));
        }
    }
}
