//! Runs the program's other commands, one after the other.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::args::quickstart::QuickstartArgs;
use crate::exit::{self, Status};
use crate::interrupt::on_interrupt;
use crate::output::outln;
use crate::ranks::check_launchable;

/// Runs a command line in this process; the arguments follow the program's name.
pub(super) type RunWords = fn(Vec<OsString>) -> anyhow::Result<Status>;

/// Where the quickstart works, and how its commands run.
pub(super) struct Steps {
    pub(super) out: PathBuf,
    /// Standard output is reserved for the results, so commands print to standard error.
    results_only: bool,
    device: &'static str,
    /// `--ranks` or `--gpus` of the training commands, if there are several ranks.
    rank_args: Option<[String; 2]>,
    /// `--set` arguments of both training commands.
    settings: Vec<String>,
    precision: &'static str,
    run_words: RunWords,
}

/// Arguments of a command line.
pub(super) fn words<const N: usize>(list: [&str; N]) -> Vec<OsString> {
    list.into_iter().map(OsString::from).collect()
}

impl Steps {
    pub(super) fn new(args: &QuickstartArgs, run_words: RunWords) -> anyhow::Result<Self> {
        check_launchable(args.ranks, args.gpus)?;
        crate::device::open(args.device)?;
        std::fs::create_dir_all(&args.output)
            .with_context(|| format!("cannot create `{}`", args.output.display()))?;
        let ranks = args.ranks.filter(|ranks| *ranks > 1).map(|ranks| ("--ranks", ranks));
        let rank_args = ranks.or(args.gpus.map(|gpus| ("--gpus", gpus)));
        let precision = args.precision.name();
        Ok(Self {
            out: args.output.clone(),
            results_only: args.json,
            device: args.device.or_gpus(args.gpus).name(),
            rank_args: rank_args.map(|(flag, count)| [flag.to_owned(), count.to_string()]),
            settings: vec![format!("seed={}", args.seed), format!("precision={precision}")],
            precision,
            run_words,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Prints text for a person: to standard error if standard output is for the results.
    pub(super) fn say(&self, text: &str) -> anyhow::Result<()> {
        match self.results_only {
            true => eprintln!("{text}"),
            false => outln!("{text}")?,
        }
        Ok(())
    }

    /// Prints a command line and runs it.
    pub(super) fn run(&self, words: Vec<OsString>) -> anyhow::Result<()> {
        self.show(&words)?;
        if self.results_only {
            return self.run_process(&words);
        }
        let name = words[0].clone();
        finished(&name, (self.run_words)(words)?)
    }

    /// Runs a command with `--flag VALUE` pairs.
    pub(super) fn command<const N: usize>(
        &self,
        name: &[&str],
        flags: [(&str, OsString); N],
    ) -> anyhow::Result<()> {
        let mut words: Vec<OsString> = name.iter().map(OsString::from).collect();
        for (flag, value) in flags {
            words.extend([flag.into(), value]);
        }
        self.run(words)
    }

    /// As [`Self::run`], with the model's device and precision.
    pub(super) fn run_model(&self, mut words: Vec<OsString>) -> anyhow::Result<()> {
        words.extend(["--precision".into(), self.precision.into()]);
        words.extend(["--device".into(), self.device.into()]);
        self.run(words)
    }

    /// Runs a training command on all ranks, with the seed, the precision and the user's settings.
    pub(super) fn run_training(
        &self,
        mut words: Vec<OsString>,
        sets: &[String],
    ) -> anyhow::Result<()> {
        for set in self.settings.iter().chain(sets) {
            words.extend(["--set".into(), set.into()]);
        }
        words.extend(["--device".into(), self.device.into()]);
        let Some(rank_args) = &self.rank_args else { return self.run(words) };
        words.extend(rank_args.iter().map(OsString::from));
        self.show(&words)?;
        // Ranks are launched with their parent's command line, so this step needs a process of its own.
        self.run_process(&words)
    }

    /// Runs a command as a process of its own. Ctrl-C reaches it too and stops it gracefully.
    fn run_process(&self, words: &[OsString]) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("cannot locate this program's executable")?;
        on_interrupt("waiting for the command to stop")?;
        let mut command = Command::new(program);
        command.args(words);
        if self.results_only {
            command.stdout(Stdio::from(io::stderr()));
        }
        let status = command.status();
        let status = status.with_context(|| format!("cannot run `{}`", words[0].display()))?;
        let status = if status.success() { Status::Done } else { Status::Partial };
        finished(&words[0], status)
    }

    fn show(&self, words: &[OsString]) -> anyhow::Result<()> {
        let shown: Vec<String> = words
            .iter()
            .map(|word| match word.to_string_lossy() {
                word if word.contains([' ', '"']) => format!("'{word}'"),
                word => word.into_owned(),
            })
            .collect();
        self.say(&format!("\n$ embodied-r {}", shown.join(" ")))
    }
}

fn finished(name: &OsString, status: Status) -> anyhow::Result<()> {
    if status == Status::Done {
        return Ok(());
    }
    let message = format!("`{}` did not finish", name.display());
    Err(exit::hint(message, "run the same `quickstart` command again to resume"))
}
