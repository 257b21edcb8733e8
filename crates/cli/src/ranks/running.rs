//! The processes of a job: started, told to stop, and ended.

use std::io::{self, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::LOOK_EVERY;
use super::lines::{self, Colour, Source};

/// How long what is left may take to end by itself when a rank has ended the job.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long it may take then to end when it is asked to.
const GRACE: Duration = Duration::from_secs(3);

/// A process to start, and whose lines it prints; nobody's of a process that is alone.
pub(super) struct Start {
    pub(super) command: Command,
    pub(super) prints: Option<Source>,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All processes ended well.
    Done,
    /// A process found its arguments wrong.
    Wrong,
    /// A process failed, or was ended.
    Failed,
}

/// What a launcher hears of while its processes run.
#[derive(Debug, Clone)]
pub(super) struct Ears {
    /// The user wants to stop.
    pub(super) stop: Arc<AtomicBool>,
    /// A rank has ended the job, though the program that started it may not know.
    pub(super) failed: Arc<AtomicBool>,
}

/// The processes, and the threads that copy what they print.
struct Processes {
    children: Vec<(Child, Option<ExitStatus>)>,
    copying: Vec<JoinHandle<io::Result<()>>>,
}

/// Runs processes until all have ended. One that fails ends the others.
///
/// # Errors
/// One cannot be started, with the system's word; or none can be waited for.
pub(super) fn run(starts: Vec<Start>, ears: &Ears) -> anyhow::Result<End> {
    ears.failed.store(false, Ordering::Relaxed);
    let mut processes = Processes { children: Vec::new(), copying: Vec::new() };
    for start in starts {
        if let Err(error) = processes.start(start) {
            processes.kill();
            return Err(error.into());
        }
    }
    let (mut told, mut failed, mut asked) = (false, None, false);
    while processes.are_left()? {
        if ears.stop.load(Ordering::Relaxed) && !told {
            told = true;
            processes.tell(Signal::USR1);
        }
        if ears.failed.load(Ordering::Relaxed) || processes.end() == Some(End::Failed) {
            failed.get_or_insert_with(Instant::now);
        }
        let since = failed.map_or(Duration::ZERO, |failed: Instant| failed.elapsed());
        if since > LAST_WORDS && !asked {
            asked = true;
            processes.tell(Signal::TERM);
        }
        if since > LAST_WORDS + GRACE {
            processes.kill();
        }
        thread::sleep(LOOK_EVERY);
    }
    processes.hear_out();
    let ended = processes.end().unwrap_or(End::Done);
    Ok(if failed.is_some() && ended == End::Done { End::Failed } else { ended })
}

impl Processes {
    fn start(&mut self, Start { mut command, prints }: Start) -> io::Result<()> {
        // Ctrl-C is for this process, which passes it on.
        command.process_group(0);
        if prints.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        self.children.push((child, None));
        let Some(source) = prints else { return Ok(()) };
        let other = source.clone();
        self.copying.extend(out.map(|from| {
            let colour = match std::env::args_os().any(|word| word == "--json") {
                true => Colour::Bare,
                false => Colour::of(&io::stdout()),
            };
            thread::spawn(move || lines::copy(BufReader::new(from), io::stdout(), &source, colour))
        }));
        self.copying.extend(err.map(|from| {
            let colour = Colour::of(&io::stderr());
            thread::spawn(move || lines::copy(BufReader::new(from), io::stderr(), &other, colour))
        }));
        Ok(())
    }

    /// Whether any process has not ended yet.
    fn are_left(&mut self) -> anyhow::Result<bool> {
        for (child, status) in &mut self.children {
            if status.is_none() {
                *status = child.try_wait().context("cannot wait for the ranks")?;
            }
        }
        Ok(self.children.iter().any(|(_, status)| status.is_none()))
    }

    /// The worst end so far, but wrong arguments are the reason for all others.
    fn end(&self) -> Option<End> {
        let codes = || self.children.iter().filter_map(|(_, status)| *status).map(|it| it.code());
        if codes().any(|code| code == Some(2)) {
            return Some(End::Wrong);
        }
        if codes().any(|code| code != Some(0)) {
            return Some(End::Failed);
        }
        codes().next().map(|_| End::Done)
    }

    fn left(&self) -> impl Iterator<Item = Pid> {
        let left = self.children.iter().filter(|(_, status)| status.is_none());
        left.map(|(child, _)| Pid::from_child(child))
    }

    fn tell(&self, signal: Signal) {
        for id in self.left() {
            // One that has just ended needs no telling.
            let _ = kill_process(id, signal);
        }
    }

    /// Ends what is left, with all that it has started.
    fn kill(&self) {
        for id in self.left() {
            for id in descendants(id) {
                let _ = kill_process(id, Signal::KILL);
            }
            let _ = kill_process(id, Signal::KILL);
        }
    }

    /// Waits for the last lines, but not for somebody who holds a pipe open and prints nothing.
    fn hear_out(&self) {
        let until = Instant::now() + GRACE;
        while self.copying.iter().any(|copy| !copy.is_finished()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// All processes that `root` has started, and that these have.
fn descendants(root: Pid) -> Vec<Pid> {
    let parents: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect();
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(id, _)| *id));
        at += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Start {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Start { command, prints: None }
    }

    fn ears() -> Ears {
        Ears { stop: Arc::default(), failed: Arc::default() }
    }

    #[test]
    fn the_worst_end_counts_and_wrong_usage_above_all() {
        let end = |scripts: &[&str]| run(scripts.iter().map(|it| shell(it)).collect(), &ears());
        assert_eq!(end(&["exit 0", "exit 0"]).unwrap(), End::Done);
        assert_eq!(end(&["exit 0", "exit 1"]).unwrap(), End::Failed);
        assert_eq!(end(&["exit 2", "exit 1"]).unwrap(), End::Wrong);
        assert_eq!(end(&["kill -9 $$"]).unwrap(), End::Failed);
    }

    #[test]
    fn one_that_fails_ends_those_that_do_not_listen_and_what_they_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("id");
        let deaf = format!(
            "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {}; sleep 600; true'; true",
            file.display()
        );
        assert_eq!(
            run(vec![shell(&deaf), shell("sleep 1; exit 1")], &ears()).unwrap(),
            End::Failed
        );
        let id: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }

    #[test]
    fn a_launcher_that_hangs_is_ended_when_a_rank_has_told_that_it_failed() {
        let ears = ears();
        let failed = Arc::clone(&ears.failed);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            failed.store(true, Ordering::Relaxed);
        });
        assert_eq!(
            run(vec![shell("trap 'exit 0' TERM; while :; do sleep 1; done")], &ears).unwrap(),
            End::Failed
        );
    }

    #[test]
    fn the_wish_to_stop_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("listens");
        let ears = ears();
        let (stop, ready) = (Arc::clone(&ears.stop), file.clone());
        thread::spawn(move || {
            while !ready.exists() {
                thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let script =
            format!("trap 'exit 0' USR1; touch {}; while :; do sleep 0.1; done", file.display());
        assert_eq!(run(vec![shell(&script)], &ears).unwrap(), End::Done);
    }
}
