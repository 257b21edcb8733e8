//! What `-h` shows of the commands with many options: what most people need, on one screen. `--help` shows all.

use clap::{Arg, Command};

/// The options that `-h` of a command shows.
const SHOWN: [(&str, &str); 5] = [
    (
        "train",
        "data eval-data reward-funcs config model output set resume dry-run image-dir video-dir gpus device",
    ),
    ("sft", "data eval-data config model output set resume dry-run image-dir gpus device"),
    (
        "eval",
        "predictions data model device benchmark scorer output json temperature max-new-tokens base-url direct",
    ),
    (
        "infer",
        "data output model device limit temperature max-new-tokens base-url captioner video-dir direct",
    ),
    (
        "serve",
        "model precision quantize device host port served-model-name max-model-len kv-cache-gb allowed-local-media-path",
    ),
];

/// `command` with short help for these commands.
pub(super) fn shortened(command: Command) -> Command {
    SHOWN.iter().fold(command, |command, (name, shown)| {
        let hidden = |argument: Arg| match argument.get_long() {
            Some(long) if shown.split(' ').all(|name| name != long) => {
                argument.hide_short_help(true)
            }
            _ => argument,
        };
        command.mut_subcommand(name, |command| command.mut_args(hidden))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a common terminal.
    const SCREEN: usize = 50;

    #[test]
    fn the_short_help_fits_on_a_screen_and_the_long_one_has_all_options() {
        let mut all = crate::args::command();
        all.build();
        for (name, shown) in SHOWN {
            let command = all.find_subcommand_mut(name).unwrap();
            let (short, long) =
                (command.render_help().to_string(), command.render_long_help().to_string());
            assert!(short.lines().count() <= SCREEN, "{name}: {} lines", short.lines().count());
            for argument in command.get_arguments().filter(|it| !it.is_hide_set()) {
                let option =
                    argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
                assert!(long.contains(&option), "{name} {option}");
            }
            for option in shown.split(' ') {
                assert!(short.contains(&format!("--{option}")), "{name} --{option}");
            }
        }
    }
}
