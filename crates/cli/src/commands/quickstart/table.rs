//! The quickstart's results: a table, and `results.json`.

use serde::Serialize;
use serde_json::Value;

use super::claims::Claim;

/// The content of `results.json`.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    /// `--seed`.
    pub(super) seed: u64,
    /// Duration of the command.
    pub(super) seconds: f64,
    /// One row for each model or control, with `--robot` and each kind of question.
    pub(super) rows: Vec<Value>,
    /// What the command claims about them.
    pub(super) claims: Vec<Claim>,
}

/// A Markdown table; numbers, right-aligned, follow `labels` columns of text.
pub(super) fn markdown(
    heads: &[&str],
    labels: usize,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let rules = (0..heads.len()).map(|column| if column < labels { "---|" } else { "--:|" });
    let mut text = format!("{}|{}\n", line(&heads), rules.collect::<String>());
    text.extend(rows.into_iter().map(|cells| line(&cells)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_right_aligned() {
        let row = ["trained", "7"].map(str::to_owned).to_vec();
        let expected = "| model | n |\n|---|--:|\n| trained | 7 |\n";
        assert_eq!(markdown(&["model", "n"], 1, [row]), expected);
    }
}
