//! `embodied-r completions`.

use crate::args::reference::CompletionsArgs;
use crate::exit::Status;

/// Prints a shell completion script.
pub(crate) fn run(args: CompletionsArgs) -> anyhow::Result<Status> {
    let mut command = crate::args::command();
    let name = command.get_name().to_owned();
    // In memory first: clap panics where the reader has left.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(Status::Done)
}
