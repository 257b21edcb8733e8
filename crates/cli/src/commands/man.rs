//! `embodied-r man`.

use std::path::Path;

use anyhow::Context as _;
use embodied_r_files::write_atomic;

use crate::args::reference::ManArgs;
use crate::exit::Status;
use crate::output::outln;

/// Writes manual pages of all commands.
pub(crate) fn run(args: ManArgs) -> anyhow::Result<Status> {
    if let Some(file) = &args.markdown {
        write_atomic(file, crate::reference::markdown(crate::args::command()).as_bytes())?;
    }
    if let Some(folder) = &args.output {
        let pages = write_pages(folder)
            .with_context(|| format!("cannot write manual pages to `{}`", folder.display()))?;
        outln!("wrote {pages} manual pages to {}", folder.display())?;
    }
    Ok(Status::Done)
}

/// Writes a page per command to `folder`, and returns their number.
fn write_pages(folder: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    // A manual page lists the commands itself, without the groups of `--help`.
    let command = crate::args::command().help_template("{all-args}").disable_help_subcommand(true);
    clap_mangen::generate_to(command, folder)?;
    let pages = std::fs::read_dir(folder)?.filter_map(Result::ok);
    Ok(pages.filter(|page| page.path().extension().is_some_and(|end| end == "1")).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_subcommand_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let pages = write_pages(folder.path()).unwrap();
        let mut expected = 1;
        let mut commands: Vec<clap::Command> =
            crate::args::command().get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            expected += 1;
            commands.extend(command.get_subcommands().filter(|it| !it.is_hide_set()).cloned());
        }
        assert_eq!(pages, expected);
        for page in ["embodied-r", "embodied-r-train", "embodied-r-sim-rooms"] {
            let text = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
            assert!(text.contains(".SH NAME"), "{page}");
        }
        let train = std::fs::read_to_string(folder.path().join("embodied-r-train.1")).unwrap();
        assert!(train.contains("Train with GRPO"), "{train}");
    }
}
