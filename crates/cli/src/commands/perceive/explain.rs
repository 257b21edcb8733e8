//! What errors of captioning advise.

use embodied_r_perception::Error;

use crate::exit::{self, Usage};

/// Separates usage errors from failures, and adds hints.
pub(super) fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::SettingsChanged { .. }
        | Error::DuplicateOutput { .. }
        | Error::WouldOverwrite { .. }
        | Error::AlreadyCaptioned { .. }
        | Error::KeyFrames(_) => Usage(error.to_string()).into(),
        Error::Data(embodied_r_data::Error::Io(file)) if file.action == "read" => exit::hint(
            error.to_string(),
            "give the data files with `--data`; `embodied-r preprocess` writes them",
        ),
        Error::TooManyFailures { .. } => exit::hint(
            error.to_string(),
            "finished captions are kept; fix the cause and run the same command again to resume",
        ),
        Error::Chat(embodied_r_openai::Error::Status { status: 401 | 403, .. }) => exit::hint(
            error.to_string(),
            "set OPENAI_API_KEY, or name another variable with `--api-key-env`",
        ),
        Error::Chat(embodied_r_openai::Error::Status { status: 404, .. }) => exit::hint(
            error.to_string(),
            "check `--base-url`, which ends in `/v1` for most servers, and `--captioner`, which must be \
             the served model name",
        ),
        _ => error.into(),
    }
}
