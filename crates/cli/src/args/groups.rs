//! The commands in groups, as `embodied-r --help` lists them. clap itself cannot group subcommands.

use std::fmt::Write as _;

use clap::Command;

/// Headings of the top-level help with their commands. Every command stands in exactly one group.
pub(crate) const GROUPS: [(&str, &[&str]); 5] = [
    ("Data", &["preprocess", "keyframes", "perceive", "filter", "sim", "robot"]),
    (
        "Training",
        &["quickstart", "plan", "sft", "train", "settings", "rewards", "runs", "show", "report"],
    ),
    ("Evaluation", &["infer", "eval", "benchmarks", "ask"]),
    ("Serving", &["serve", "chat"]),
    ("Tools", &["doctor", "merge", "inspect", "bench", "completions", "man"]),
];

/// The template of the top-level help, with the commands of `command` under their headings.
pub(super) fn help_template(command: &Command) -> String {
    let styles = command.get_styles();
    let (heading, literal) = (styles.get_header(), styles.get_literal());
    let width = GROUPS.iter().flat_map(|(_, names)| names.iter().map(|name| name.len()));
    let width = width.max().unwrap_or_default();
    let mut template = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (title, names) in GROUPS {
        let _ = write!(template, "\n{heading}{title}:{heading:#}\n");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(template, "  {literal}{name:width$}{literal:#}  {about}");
        }
    }
    let _ = write!(template, "\n{heading}Options:{heading:#}\n{{options}}\n\n");
    let _ = writeln!(template, "Run `{} COMMAND --help` for its options.", command.get_name());
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_stands_in_exactly_one_group() {
        let command = crate::args::command();
        let mut known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        known.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, known);
    }

    #[test]
    fn the_help_begins_with_the_purpose_and_lists_the_groups() {
        let help = crate::args::command().render_help().to_string();
        let first = "Train language models to reason about space in egocentric videos\n";
        assert!(help.starts_with(first), "{help}");
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("no {text} in {help}"));
        let headings = ["Data:", "Training:", "Evaluation:", "Serving:", "Tools:", "Options:"];
        assert!(headings.map(at).is_sorted(), "{help}");
        assert!(help.contains("\n  train        Train with GRPO\n"), "{help}");
    }
}
