//! The backends of `perceive`, and which of its options belong to each.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, ValueEnum};

pub(super) const CAPTIONER: &str = "Captioner (--backend openai or local)";
pub(super) const OPENAI: &str = "API client (--backend openai)";
pub(super) const LOCAL: &str = "Local model (--backend local)";
const PARALLELISM: &str = "Parallelism (--backend local)";
pub(super) const SCENE: &str = "3-D annotations (--backend scene)";

/// A captioning backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// A vision-language model behind an OpenAI-compatible API.
    Openai,
    /// A vision-language model in this process.
    Local,
    /// Ground-truth captions from 3-D annotations, without a model.
    Scene,
}

impl Backend {
    /// Its name on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Local => "local",
            Self::Scene => "scene",
        }
    }
}

/// Help headings whose options belong to some backends only.
const OWNERS: [(&str, &[Backend]); 5] = [
    (CAPTIONER, &[Backend::Openai, Backend::Local]),
    (OPENAI, &[Backend::Openai]),
    (LOCAL, &[Backend::Local]),
    (PARALLELISM, &[Backend::Local]),
    (SCENE, &[Backend::Scene]),
];

/// Names the backend in the heading of options that other commands have too.
pub(in crate::args) fn with_backend_headings(command: Command) -> Command {
    command.mut_args(|argument| match argument.get_help_heading() {
        Some("Parallelism") => argument.help_heading(PARALLELISM),
        _ => argument,
    })
}

/// Refuses options of one backend with another; `command` is `perceive`.
///
/// # Errors
/// An option that was given belongs to another backend than `--backend`.
pub(in crate::args) fn check(
    matches: &ArgMatches,
    command: &mut Command,
) -> Result<(), clap::Error> {
    let Some(chosen) = matches.get_one::<Backend>("backend").copied() else { return Ok(()) };
    for (heading, backends) in OWNERS.iter().filter(|(_, backends)| !backends.contains(&chosen)) {
        if let Some(option) = given(matches, command, heading) {
            let owners: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
            let message = format!(
                "`--{option}` belongs to `--backend {}`, but the backend is `{}`",
                owners.join("` or `"),
                chosen.name()
            );
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
    }
    Ok(())
}

/// The name of the first option under `heading` that was given.
fn given(matches: &ArgMatches, command: &Command, heading: &str) -> Option<String> {
    let mut options = command
        .get_arguments()
        .filter(|argument| argument.get_help_heading() == Some(heading))
        .filter(|argument| {
            let source = matches.value_source(argument.get_id().as_str());
            source == Some(ValueSource::CommandLine)
        });
    options.next()?.get_long().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::try_parse_from;

    /// Options that every backend has.
    const SHARED: [&str; 15] = [
        "data",
        "benchmark",
        "prompt",
        "answers",
        "output",
        "video_dir",
        "backend",
        "scope",
        "shard",
        "concurrency",
        "limit",
        "redo_changed",
        "threshold",
        "min_frames",
        "max_frames",
    ];

    fn error(options: &[&str]) -> String {
        let error = try_parse_from(["embodied-r", "perceive"].iter().chain(options)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn an_option_of_another_backend_is_refused_and_both_are_named() {
        for (options, message) in [
            (
                &["--backend", "local", "--base-url", "http://h/v1"][..],
                "`--base-url` belongs to `--backend openai`, but the backend is `local`",
            ),
            (
                &["--backend", "scene", "--scenes", "s", "--max-retries", "0"],
                "`--max-retries` belongs to `--backend openai`, but the backend is `scene`",
            ),
            (
                &["--backend", "scene", "--scenes", "s", "--model-path", "m"],
                "`--captioner` belongs to `--backend openai` or `local`, but the backend is `scene`",
            ),
            (
                &["--kv-cache-gb", "4"],
                "`--kv-cache-gb` belongs to `--backend local`, but the backend is `openai`",
            ),
            (
                &["--quantize", "q8_0"],
                "`--quantize` belongs to `--backend local`, but the backend is `openai`",
            ),
            (&["--tp", "2"], "`--tp` belongs to `--backend local`, but the backend is `openai`"),
            (
                &["--ranks", "2"],
                "`--ranks` belongs to `--backend local`, but the backend is `openai`",
            ),
            (
                &["--scenes", "s"],
                "`--scenes` belongs to `--backend scene`, but the backend is `openai`",
            ),
        ] {
            let error = error(options);
            assert!(error.contains(message), "{message} in\n{error}");
        }
    }

    #[test]
    fn options_of_the_chosen_backend_are_accepted() {
        for options in [
            &["--backend", "openai", "--base-url", "http://h/v1", "--captioner", "m"][..],
            &["--backend", "local", "--captioner", "m", "--tp", "2", "--ranks", "2"],
            &["--backend", "scene", "--scenes", "s", "--threshold", "0.4"],
            &["merge", "a", "b"],
        ] {
            let words = ["embodied-r", "perceive"].iter().chain(options);
            assert!(try_parse_from(words).is_ok(), "{options:?}");
        }
    }

    #[test]
    fn every_option_belongs_to_a_backend_or_to_all() {
        let command = crate::args::command();
        let command = command.find_subcommand("perceive").unwrap();
        let headings = || command.get_arguments().map(clap::Arg::get_help_heading);
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            let heading = argument.get_help_heading();
            let owned = OWNERS.iter().any(|(owner, _)| Some(*owner) == heading);
            assert!(owned != SHARED.contains(&id), "`{id}` under {heading:?}");
        }
        for (heading, _) in OWNERS {
            assert!(headings().any(|known| known == Some(heading)), "{heading}");
        }
    }
}
