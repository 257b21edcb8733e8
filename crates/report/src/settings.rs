//! The settings of a run, from its folder or its last checkpoint.

use std::fmt::Write as _;
use std::path::Path;

use embodied_r_grpo::checkpoint::step_of;

use crate::html::escape;

const FILE: &str = "settings.toml";

/// Settings with their dotted names; empty if the run has no readable settings file.
pub(crate) fn read(run: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(run.join(FILE)).ok().or_else(|| of_checkpoint(run));
    let table = text.and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
    let mut rows = Vec::new();
    flatten("", &toml::Value::Table(table), &mut rows);
    rows
}

/// The settings in the last checkpoint that has any.
fn of_checkpoint(run: &Path) -> Option<String> {
    let step = |path: &Path| step_of(path.file_name()?.to_str()?);
    let entries = std::fs::read_dir(run).ok()?.flatten().map(|entry| entry.path());
    let checkpoints = entries.filter_map(|path| Some((step(&path)?, path.join(FILE))));
    let last = checkpoints.filter(|(_, file)| file.is_file()).max_by_key(|(step, _)| *step)?.1;
    std::fs::read_to_string(last).ok()
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
        // Debug format: small numbers are written with an exponent.
        toml::Value::Float(number) => rows.push((name.to_owned(), format!("{number:?}"))),
        other => rows.push((name.to_owned(), other.to_string())),
    }
}

/// The settings as a collapsed table.
pub(crate) fn section(rows: &[(String, String)]) -> String {
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
    fn nested_settings_are_listed_with_dotted_names() {
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
    fn settings_fall_back_to_the_last_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        for step in [9, 10] {
            let checkpoint = run.path().join(format!("checkpoint-{step}"));
            std::fs::create_dir(&checkpoint).unwrap();
            std::fs::write(checkpoint.join(FILE), format!("seed = {step}\n")).unwrap();
        }
        assert_eq!(read(run.path()), [("seed".to_owned(), "10".to_owned())]);
    }

    #[test]
    fn a_run_without_settings_has_no_table() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(section(&read(run.path())), "");
    }
}
