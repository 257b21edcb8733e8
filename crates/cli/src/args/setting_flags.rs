//! Settings as flags of `train` and `sft`, as users of TRL and ms-swift type them: `--learning_rate 1e-6`.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// A setting and the values that its flag has.
pub(crate) type SettingFlag = (String, Vec<String>);

/// What the help says of the flags, which it does not list.
pub(super) const AFTER_HELP: &str = "Every setting is a flag, too, such as `--learning_rate 1e-6`; `embodied-r settings` lists them.";

/// `command` with a hidden flag for each setting that is no option of its own.
pub(super) fn with_setting_flags(command: Command, settings: &[&'static str]) -> Command {
    let is_option = |name: &str| {
        command.get_arguments().any(|argument| {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            argument.get_id() == name
                || argument.get_long() == Some(name)
                || aliases.contains(&name)
        })
    };
    let flags: Vec<Arg> = settings
        .iter()
        .filter(|name| !is_option(name) && !is_option(&name.replace('_', "-")))
        .map(|name| {
            let hyphened = Some(name.replace('_', "-")).filter(|hyphened| hyphened != name);
            Arg::new(*name)
                .long(*name)
                .aliases(hyphened)
                .help("The setting of this name, see `embodied-r settings`")
                .hide(true)
                .num_args(0..)
                .default_missing_value("true")
                .allow_negative_numbers(true)
                .action(ArgAction::Append)
        })
        .collect();
    command.args(flags)
}

/// The flags of `settings` in the `matches` of `command`, without its own options; the last one counts.
pub(super) fn given(
    matches: &ArgMatches,
    command: &Command,
    settings: &[&'static str],
) -> Vec<SettingFlag> {
    let is_flag = |name: &str| {
        command.get_arguments().any(|argument| argument.get_id() == name && argument.is_hide_set())
    };
    let values = |name: &&'static str| {
        if !is_flag(name) {
            return None;
        }
        let mut occurrences = matches.try_get_occurrences::<String>(name).ok().flatten()?;
        Some(((*name).to_owned(), occurrences.next_back()?.cloned().collect()))
    };
    settings.iter().filter_map(values).collect()
}

/// `command` and those below it, whose options may be written with underscores, as Python's are, and have negative numbers
/// as values.
pub(super) fn with_python_spellings(command: Command) -> Command {
    let with_aliases = |argument: Arg| {
        let mut names: Vec<String> =
            argument.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned).collect();
        names.extend(argument.get_long().map(str::to_owned));
        let spelled: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
        let argument = argument.aliases(spelled.into_iter().filter(|name| !names.contains(name)));
        match argument.get_action().takes_values() {
            true => argument.allow_negative_numbers(true),
            false => argument,
        }
    };
    command.mut_args(with_aliases).mut_subcommands(with_python_spellings)
}
