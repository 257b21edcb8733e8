//! `embodied-r settings`: what `docs/settings.md` says, on the terminal.

use std::fmt::Write as _;

use embodied_r_grpo::settings::{GrpoSettings, SftSettings};

use crate::args::settings::SettingsArgs;
use crate::exit::{Status, Usage};
use crate::output::out;
use crate::settings::{canonical_name, unknown_setting};

/// Generated from the settings' own code, which a test compares.
const PAGE: &str = include_str!("../../../../docs/settings.md");

/// List the settings, or explain one.
pub(crate) fn run(args: SettingsArgs) -> anyhow::Result<Status> {
    match args.name {
        None => out!("{}", listed())?,
        Some(name) => out!("{}", explained(&name)?)?,
    }
    Ok(Status::Done)
}

/// Columns of the list, of which longer lines are cut.
const WIDTH: usize = 140;

/// A row of the page.
struct Row<'a> {
    /// `train` or `sft`.
    command: &'a str,
    /// The heading within the command; empty for `sft`.
    group: &'a str,
    name: String,
    default: String,
    meaning: String,
    peer: String,
}

/// The settings of both commands in the order of the page.
fn rows() -> Vec<Row<'static>> {
    let (mut command, mut group, mut rows) = ("", "", Vec::new());
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            (command, group) = (heading, "");
        } else if let Some(heading) = line.strip_prefix("### ") {
            group = heading;
        }
        let cells: Vec<String> = line.trim_matches('|').split(" | ").map(plain).collect();
        if let [name, default, meaning, peer] = cells.as_slice()
            && line.starts_with("| `")
        {
            let [name, default, meaning, peer] = [name, default, meaning, peer].map(String::clone);
            rows.push(Row { command, group, name, default, meaning, peer });
        }
    }
    rows
}

/// The text of a cell: without marks of code, and of a link its label.
fn plain(cell: &str) -> String {
    let mut text = cell.trim().replace('`', "");
    while let Some((start, end)) =
        text.find("](").and_then(|at| Some((at, at + text[at..].find(')')?)))
    {
        text.replace_range(start..=end, "");
        if let Some(open) = text[..start].rfind('[') {
            text.remove(open);
        }
    }
    text
}

/// One line per setting.
fn listed() -> String {
    let rows = rows();
    let width = |lengths: Vec<usize>, most: usize| {
        lengths.into_iter().filter(|length| *length <= most).max().unwrap_or_default()
    };
    let names = width(rows.iter().map(|row| row.name.chars().count()).collect(), 40);
    let defaults = width(rows.iter().map(|row| row.default.chars().count()).collect(), 24);
    let (mut text, mut heading) = (String::new(), String::new());
    for Row { command, group, name, default, meaning, .. } in &rows {
        let current = format!("{command}{}{}", if group.is_empty() { "" } else { ": " }, group);
        if heading != current {
            let gap = if heading.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{current}");
            heading = current;
        }
        let sentence = meaning.split_once(". ").map_or(meaning.as_str(), |(first, _)| first);
        let sentence = sentence.trim_end_matches('.');
        let line = format!("  {name:names$}  {default:defaults$}  {sentence}");
        let _ = match line.chars().count() > WIDTH {
            true => {
                writeln!(text, "{}…", line.chars().take(WIDTH - 1).collect::<String>().trim_end())
            }
            false => writeln!(text, "{line}"),
        };
    }
    text
}

/// All that the page says of one setting, for each command that has it.
fn explained(name: &str) -> anyhow::Result<String> {
    let name = name.trim_start_matches('-').replace('-', "_");
    let mut text = String::new();
    for Row { command, name, default, meaning, peer, .. } in rows()
        .iter()
        .filter(|row| [&name, canonical(row.command, &name)].contains(&row.name.as_str()))
    {
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = write!(
            text,
            "{gap}{name} ({command})\n  default: {default}\n  in TRL or ms-swift: {peer}\n  {meaning}\n"
        );
    }
    match text.is_empty() {
        true => Err(Usage(unknown_setting::<GrpoSettings>(&name)).into()),
        false => Ok(text),
    }
}

fn canonical<'a>(command: &str, name: &'a str) -> &'a str {
    match command {
        "sft" => canonical_name::<SftSettings>(name),
        _ => canonical_name::<GrpoSettings>(name),
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_grpo::settings::names;

    use super::*;

    #[test]
    fn every_setting_is_listed_with_its_command() {
        let of = |command| -> Vec<String> {
            rows().into_iter().filter(|row| row.command == command).map(|row| row.name).collect()
        };
        assert_eq!(of("train"), names::<GrpoSettings>());
        assert_eq!(of("sft"), names::<SftSettings>());
        let listed = listed();
        assert!(listed.starts_with("train: Run\n  model "), "{listed}");
        assert!(listed.contains("\nsft\n  model "), "{listed}");
    }

    #[test]
    fn a_setting_is_explained_by_each_of_its_names() {
        let found = explained("learning_rate").unwrap();
        assert!(
            found.starts_with(
                "learning_rate (train)\n  default: 5e-7\n  in TRL or ms-swift: TRL 1e-6"
            ),
            "{found}"
        );
        assert!(found.contains("\nlearning_rate (sft)\n  default: 1e-5\n"), "{found}");
        for name in ["--learning-rate", "--learning_rate"] {
            assert_eq!(explained(name).unwrap(), found);
        }
        assert_eq!(explained("output_dir").unwrap(), explained("output").unwrap());
        let unknown = explained("learning_rte").unwrap_err().to_string();
        assert_eq!(unknown, "unknown setting `learning_rte`; did you mean `learning_rate`?");
        let other = explained("per_device_train_batch_size").unwrap_err().to_string();
        assert!(other.contains("use `generation_batch_size`"), "{other}");
    }

    #[test]
    fn a_link_is_its_label() {
        assert_eq!(
            plain(" a [format](x.md#y) of `b`. [The texts](#z). "),
            "a format of b. The texts."
        );
    }
}
