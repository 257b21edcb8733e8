//! The command line reference as Markdown: `docs/cli.md`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::args::GROUPS;

/// How to regenerate the file.
const UPDATE: &str = "UPDATE_DOCS=1 cargo test -p embodied-r-cli cli_reference";

/// The heading of the options that several commands have.
const SHARED: &str = "Shared options";

/// Options of this length that several commands have are documented once: of shorter ones a reference saves nothing.
const LEAST_SHARED: usize = 100;

/// The reference of all commands under the headings of the top-level help.
pub(crate) fn markdown(mut command: Command) -> String {
    command.build();
    let name = command.get_name().to_owned();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(
        "# Command line reference\n\n`{name}`: {}.\n\nGenerated from `--help`; to update it, run `{UPDATE}`.\n",
        lowercase_first(&about)
    );
    for (title, names) in GROUPS {
        let _ = write!(text, "\n**{title}**\n\n");
        for subcommand in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let (path, about) = (path(subcommand), about_of(subcommand));
            let _ = writeln!(text, "- [`{path}`](#{}): {about}", path.replace(' ', "-"));
        }
    }
    let global = command.get_arguments().find(|argument| argument.is_global_set());
    let global = global.map(option).unwrap_or_default();
    let _ = write!(
        text,
        "\nEvery command also has `--help` and `--version`, and this option:\n\n{global}"
    );
    let shared = Shared::of(&command);
    let _ = write!(text, "\n## {SHARED}\n\nThe commands below name these options alone.\n\n");
    shared.0.values().for_each(|option| text.push_str(option));
    for (title, names) in GROUPS {
        let _ = write!(text, "\n## {title}\n");
        for name in names {
            if let Some(subcommand) = command.find_subcommand_mut(name) {
                section(subcommand, "###", &shared, &mut text);
            }
        }
    }
    text
}

/// The options that several commands have with the same help, by their labels.
struct Shared(BTreeMap<String, String>);

impl Shared {
    fn of(command: &Command) -> Self {
        let mut counts: HashMap<(String, String), usize> = HashMap::new();
        count(command, &mut counts);
        let mut shared: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((label, option), count) in counts {
            if count > 1 && option.len() >= LEAST_SHARED {
                shared.entry(label).or_default().push(option);
            }
        }
        // An option of two meanings is documented where it is.
        let sole = |(label, options): (String, Vec<String>)| {
            <[String; 1]>::try_from(options).ok().map(|[option]| (label, option))
        };
        Self(shared.into_iter().filter_map(sole).collect())
    }

    fn has(&self, argument: &Arg) -> bool {
        self.0.get(&label(argument)).is_some_and(|shared| *shared == option(argument))
    }
}

/// Counts the options of `command` and those below it, by label and text.
fn count(command: &Command, counts: &mut HashMap<(String, String), usize>) {
    for argument in command.get_arguments().filter(is_shown).filter(|it| !it.is_positional()) {
        *counts.entry((label(argument), option(argument))).or_default() += 1;
    }
    command.get_subcommands().for_each(|command| count(command, counts));
}

/// Whether the reference of a command has this argument.
fn is_shown(argument: &&Arg) -> bool {
    let automatic = matches!(argument.get_id().as_str(), "help" | "version");
    !argument.is_hide_set() && !argument.is_global_set() && !automatic
}

/// One command and its subcommands.
fn section(command: &mut Command, level: &str, shared: &Shared, text: &mut String) {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let usage: Vec<&str> = usage.lines().map(str::trim).collect();
    let _ = write!(
        text,
        "\n{level} {}\n\n{}\n\n```text\n{}\n```\n",
        path(command),
        sentence(&about.unwrap_or_default()),
        usage.join("\n")
    );
    let mut headings: Vec<Option<&str>> = Vec::new();
    for argument in command.get_arguments().filter(is_shown) {
        if !headings.contains(&section_of(argument)) {
            headings.push(section_of(argument));
        }
    }
    // As in the help: arguments, options, then options with headings of their own.
    headings.sort_by_key(|heading| match *heading {
        Some(ARGUMENTS) => 0,
        None => 1,
        Some(_) => 2,
    });
    let help = command.clone().render_long_help().to_string();
    for heading in headings {
        let _ = write!(text, "\n{}:\n\n", heading.unwrap_or("Options"));
        let here = |argument: &&Arg| section_of(argument) == heading;
        let mut arguments: Vec<&Arg> =
            command.get_arguments().filter(is_shown).filter(here).collect();
        arguments.sort_by_key(|argument| line_of(argument, &help));
        let (named, own): (Vec<&Arg>, Vec<&Arg>) =
            arguments.into_iter().partition(|argument| shared.has(argument));
        own.into_iter().for_each(|argument| text.push_str(&option(argument)));
        if !named.is_empty() {
            let names: Vec<String> = named.into_iter().map(label).collect();
            let anchor = SHARED.to_lowercase().replace(' ', "-");
            let _ = writeln!(text, "- [shared](#{anchor}): {}", names.join(", "));
        }
    }
    let is_shown = |command: &&mut Command| command.get_name() != "help" && !command.is_hide_set();
    for subcommand in command.get_subcommands_mut().filter(is_shown) {
        section(subcommand, &format!("{level}#"), shared, text);
    }
}

/// The line of `help` that describes the option; clap has no accessor for the display order.
fn line_of(argument: &Arg, help: &str) -> Option<usize> {
    let long = format!("--{}", argument.get_long()?);
    help.lines().position(|line| line.split_whitespace().next() == Some(&long))
}

const ARGUMENTS: &str = "Arguments";

fn section_of(argument: &Arg) -> Option<&str> {
    match argument.is_positional() {
        true => Some(ARGUMENTS),
        false => argument.get_help_heading(),
    }
}

/// The names of an option and its value, as code.
fn label(argument: &Arg) -> String {
    let mut names: Vec<String> =
        argument.get_short().map(|short| format!("-{short}")).into_iter().collect();
    names.extend(argument.get_long().map(|long| format!("--{long}")));
    names.extend(
        argument.get_visible_aliases().unwrap_or_default().iter().map(|alias| format!("--{alias}")),
    );
    // As clap prints it, with `...` after a value that may be repeated and brackets around an optional one.
    let shown = argument.to_string();
    let value = match argument.is_positional() {
        true => shown.as_str(),
        false => shown.split_once(' ').map_or("", |(_, value)| value),
    };
    match names.is_empty() {
        true => format!("`{value}`"),
        false if value.is_empty() => format!("`{}`", names.join("`, `")),
        false => format!("`{} {value}`", names.join("`, `")),
    }
}

/// One option as an item of a list.
fn option(argument: &Arg) -> String {
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string);
    let mut text =
        format!("- {}: {}", label(argument), help.unwrap_or_default().replace('\n', "\n  "));
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if takes_value && !defaults.is_empty() && !argument.is_hide_default_value_set() {
        let _ = write!(text, " [default: {}]", defaults.join(", "));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(text, " [env: `{}`]", variable.to_string_lossy());
    }
    text.push('\n');
    if takes_value {
        for value in argument.get_possible_values().iter().filter(|value| !value.is_hide_set()) {
            let help = value.get_help().map(|help| format!(": {help}")).unwrap_or_default();
            let _ = writeln!(text, "  - `{}`{help}", value.get_name());
        }
    }
    text
}

/// The command as it is typed, such as `embodied-r sim rooms`.
fn path(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn about_of(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// `text` with a full stop, which clap removes from a single sentence.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

fn lowercase_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if `docs/cli.md` is not what the program says, and writes it with `UPDATE_DOCS=1`.
    #[test]
    fn cli_reference_is_current() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
        let current = markdown(crate::args::command());
        if std::env::var_os("UPDATE_DOCS").is_some_and(|value| !value.is_empty()) {
            std::fs::write(file, &current).unwrap();
        }
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(written == current, "`docs/cli.md` is out of date; run `{UPDATE}`");
    }

    #[test]
    fn a_section_has_usage_defaults_and_values_but_no_hidden_names() {
        let text = markdown(crate::args::command());
        for part in [
            "### embodied-r preprocess\n",
            "#### embodied-r sim rooms\n",
            "- `--data <DIR>`: Directory that holds the downloaded benchmarks [default: `dataset/`]\n",
            "  - `link`: Hard-link",
            "- `--max-new-tokens`, `--max-tokens <N>`:",
            "Local model (--backend local):\n",
            "[env: `EMBODIED_R_LOG`]",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("--save-path"), "{text}");
    }
}
