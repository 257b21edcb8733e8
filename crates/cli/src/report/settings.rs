//! The settings that a run was made with, from the file that it keeps of them.

use std::fmt::Write as _;
use std::path::Path;

use super::html::escape;

/// Names under which a run keeps its settings, the first found counts.
const FILES: [&str; 2] = ["settings.toml", "config.toml"];

/// Settings by their dotted names; empty where the run kept none that can be read.
pub(super) fn read(run: &Path) -> Vec<(String, String)> {
    let text = FILES.iter().find_map(|name| std::fs::read_to_string(run.join(name)).ok());
    let table = text.and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
    let mut rows = Vec::new();
    flatten("", &toml::Value::Table(table), &mut rows);
    rows
}

fn flatten(name: &str, value: &toml::Value, rows: &mut Vec<(String, String)>) {
    let inner = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        toml::Value::Table(table) => {
            table.iter().for_each(|(key, value)| flatten(&inner(key), value, rows));
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(at, value)| flatten(&format!("{name}[{at}]"), value, rows));
        }
        toml::Value::String(text) => rows.push((name.to_owned(), text.clone())),
        // Small numbers with an exponent, as people write them.
        toml::Value::Float(number) => rows.push((name.to_owned(), format!("{number:?}"))),
        other => rows.push((name.to_owned(), other.to_string())),
    }
}

/// The settings as a table that opens at a click.
pub(super) fn section(rows: &[(String, String)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<section>\n<h2>Settings</h2>\n<details class=\"card\"><summary>all settings of the \
         run</summary>\n<table class=\"settings\"><tbody>\n",
    );
    for (name, value) in rows {
        let _ = writeln!(html, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value));
    }
    html.push_str("</tbody></table>\n</details>\n</section>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_settings_are_listed_by_their_dotted_names() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(
            run.path().join("settings.toml"),
            "learning_rate = 5e-7\n[[stage]]\nepochs = 2\nweights = { format = 0.7 }\n",
        )
        .unwrap();
        let rows = read(run.path());
        let rows: Vec<_> =
            rows.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            rows,
            [
                ("learning_rate", "5e-7"),
                ("stage[0].epochs", "2"),
                ("stage[0].weights.format", "0.7")
            ]
        );
    }

    #[test]
    fn a_run_without_settings_has_no_table() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(section(&read(run.path())), "");
    }
}
