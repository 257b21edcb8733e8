//! Long output through a pager.

use std::io::{self, IsTerminal as _, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use signal_hook::consts::SIGINT;

/// Whether a pager may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paging {
    /// If standard output is a terminal.
    Auto,
    /// Never.
    Off,
}

/// Standard output, through a pager if there is one. Dropping it waits until the user quits the pager.
pub(crate) struct Pager(Option<Child>);

impl Pager {
    /// Starts `$PAGER` if `paging` allows it; writes to standard output if it does not, or if the pager cannot be
    /// started.
    pub(crate) fn start(paging: Paging) -> Self {
        let stdout = io::stdout();
        if paging == Paging::Off || !stdout.is_terminal() {
            return Self(None);
        }
        let pager = command(std::env::var("PAGER").ok()).and_then(|mut pager| pager.spawn().ok());
        if pager.is_some() {
            // Ctrl-C is for the pager, which must not outlive this process on the terminal.
            let _ = signal_hook::flag::register(SIGINT, Arc::default());
        }
        Self(pager)
    }
}

/// The command of the pager: `less -R` unless `PAGER` is set; `None` if that is blank or `cat`.
fn command(pager: Option<String>) -> Option<Command> {
    let mut command = match pager.as_deref().map(str::trim) {
        Some("" | "cat") => return None,
        Some(pager) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(pager);
            shell
        }
        // Not by a shell: where there is no `less`, starting it fails, and the text goes to standard output.
        None => {
            let mut less = Command::new("less");
            less.arg("-R");
            less
        }
    };
    command.stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // As git: quit if the text fits on one screen, keep colors, leave the text on the screen.
        command.env("LESS", "FRX");
    }
    Some(command)
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(pager) => pager.write(bytes),
            None => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(pager) => pager.flush(),
            None => io::stdout().flush(),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Closes the pipe, so that the pager sees the end of the text.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pager: Option<&str>) -> Option<Vec<String>> {
        let command = command(pager.map(str::to_owned))?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Some(words.map(|word| word.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn the_users_pager_comes_before_less() {
        assert_eq!(words(None).unwrap(), ["less", "-R"]);
        assert_eq!(words(Some("most -w")).unwrap(), ["sh", "-c", "most -w"]);
        assert_eq!(words(Some("cat")), None);
        assert_eq!(words(Some(" ")), None);
    }

    #[test]
    fn a_pager_reads_everything_before_the_command_ends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("paged");
        let pager = format!("sleep 0.1; cat > '{}'", file.display());
        let mut pager = Pager(Some(command(Some(pager)).unwrap().spawn().unwrap()));
        pager.write_all(b"completions").unwrap();
        drop(pager);
        assert_eq!(std::fs::read(&file).unwrap(), b"completions");
    }
}
