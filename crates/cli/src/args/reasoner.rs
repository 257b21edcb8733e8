//! Options of the model that answers the questions of `infer` and `eval`: a local one, or one behind an API.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::api::ApiArgs;
use super::model::ModelArgs;

/// Options of `WeightArgs`, which place the weights of the model, and of a local captioner.
const WEIGHTS: [&str; 3] = ["precision", "quantize", "device"];

/// The model that answers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReasonerArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// Refuses options of local weights where nothing runs in this process; `command` is `infer` or `eval`.
///
/// # Errors
/// Such an option was given, but the model is behind an API and the captioner is no local model.
pub(super) fn check(matches: &ArgMatches, command: &mut Command) -> Result<(), clap::Error> {
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let has_local_captioner = is_given("captioner") && !is_given("captioner_base_url");
    if !is_given("base_url") || has_local_captioner {
        return Ok(());
    }
    refuse_local(matches, command, &WEIGHTS)
}

/// Refuses `options` of a local model for one on a server.
///
/// # Errors
/// One of them was given.
pub(super) fn refuse_local(
    matches: &ArgMatches,
    command: &mut Command,
    options: &[&str],
) -> Result<(), clap::Error> {
    let is_given = |id: &&&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let Some(option) = options.iter().find(is_given) else { return Ok(()) };
    let option = option.replace('_', "-");
    let message = format!(
        "`--{option}` belongs to a local model, but with `--base-url` the model is on a server"
    );
    Err(command.error(ErrorKind::ArgumentConflict, message))
}

#[cfg(test)]
mod tests {
    use crate::args::try_parse_from;

    const API: [&str; 4] = ["--model", "m", "--base-url", "http://h/v1"];

    fn parse(options: &[&str]) -> Result<(), String> {
        for command in [&["infer", "--data", "d", "--output", "o"][..], &["eval", "--data", "d"]] {
            let words = ["embodied-r"].iter().chain(command).chain(&API).chain(options);
            try_parse_from(words).map_err(|error| {
                assert_eq!(error.exit_code(), 2);
                error.to_string()
            })?;
        }
        Ok(())
    }

    #[test]
    fn options_of_a_local_model_are_refused_with_an_api() {
        for options in [
            ["--device", "cpu"],
            ["--precision", "f32"],
            ["--quantize", "q8_0"],
            ["--revision", "main"],
            ["--batch", "4"],
        ] {
            let error = parse(&options).unwrap_err();
            assert!(error.contains(options[0]) && error.contains("--base-url"), "{error}");
        }
    }

    #[test]
    fn a_local_captioner_beside_an_api_has_a_device() {
        let local = ["--captioner", "vl", "--device", "cpu"];
        assert_eq!(parse(&local), Ok(()));
        let remote = [&local[..], &["--captioner-base-url", "http://h/v1"]].concat();
        assert!(parse(&remote).unwrap_err().contains("`--device` belongs to a local model"));
    }

    #[test]
    fn options_of_an_api_need_one() {
        for option in ["--concurrency", "--api-key-env", "--timeout-s", "--max-retries"] {
            let words = ["embodied-r", "eval", "--data", "d", "--model", "m", option, "1"];
            let error = try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains("--base-url"), "{error}");
        }
        let error = try_parse_from(["embodied-r", "eval", "--base-url", "u"]).unwrap_err();
        assert!(error.to_string().contains("--model"), "{error}");
    }
}
