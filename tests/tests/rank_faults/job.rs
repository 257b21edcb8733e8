//! A training job for fault injection, and its result.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use embodied_r_tests::binary;

/// The environment variable that marks the processes of a job.
const MARK: &str = "EMBODIED_R_TEST_JOB";
/// Far longer than any step of these tests.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs a command, and returns whether it succeeds.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A running job.
pub(crate) struct Job {
    child: Child,
    mark: String,
    lines: Arc<Mutex<Vec<String>>>,
}

/// The result of a job.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
    pub(crate) took: Duration,
}

impl Job {
    /// Starts `command`. Its processes inherit a mark by which they are found.
    pub(crate) fn start(mut command: Command, dir: &Path) -> Self {
        let mark = dir.display().to_string();
        command.current_dir(dir).env(MARK, &mark).env("NO_COLOR", "1").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::default();
        collect(child.stdout.take().unwrap(), &lines);
        collect(child.stderr.take().unwrap(), &lines);
        Self { child, mark, lines }
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until `ready` returns a value.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&[String]) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(value) = ready(&self.lines.lock().unwrap()) {
                return value;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no {what}: {}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until `rank` starts `phase` again.
    pub(crate) fn wait_for_phase(&mut self, rank: usize, phase: &str) {
        let seen = self.lines.lock().unwrap().len();
        self.wait_for(phase, |lines| {
            let starts = |line: &String| starts(line, rank, phase);
            lines.iter().skip(seen).any(starts).then_some(())
        });
    }

    /// Stops `rank` within `phase` with SIGSTOP.
    pub(crate) fn stop_in(&mut self, rank: usize, phase: &str) {
        loop {
            self.wait_for_phase(rank, phase);
            self.signal(rank, "STOP");
            // Wait for the lines that it printed before.
            thread::sleep(Duration::from_millis(100));
            let lines = self.lines.lock().unwrap();
            let last = lines.iter().rev().find(|line| starts(line, rank, ""));
            if last.is_some_and(|line| starts(line, rank, phase)) {
                return;
            }
            drop(lines);
            self.signal(rank, "CONT");
        }
    }

    /// The id of the process that was started.
    pub(crate) fn launcher(&self) -> String {
        self.child.id().to_string()
    }

    /// The process id of a rank.
    pub(crate) fn rank(&self, rank: usize) -> String {
        let rank = format!("OMPI_COMM_WORLD_RANK={rank}");
        let is_rank = |id: &String| {
            let program = fs::read_link(format!("/proc/{id}/exe")).unwrap_or_default();
            variables(id).contains(&rank) && program.ends_with("embodied-r")
        };
        self.processes().into_iter().find(is_rank).unwrap()
    }

    pub(crate) fn signal(&self, rank: usize, signal: &str) {
        assert!(succeeds("kill", &["-s", signal, &self.rank(rank)]));
    }

    /// All processes of the job except zombies.
    fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark);
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().into_string().ok());
        ids.filter(|id| id.parse::<u32>().is_ok() && variables(id).contains(&mark)).collect()
    }

    /// Waits until the job and all of its processes have exited.
    pub(crate) fn end(mut self) -> Ended {
        let began = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(began.elapsed() < TIMEOUT, "the job does not end: {}", self.text());
            thread::sleep(Duration::from_millis(10));
        };
        let took = began.elapsed();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.processes().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let left: Vec<_> = self.processes().iter().map(|id| command_line(id)).collect();
        assert_eq!(left, Vec::<String>::new(), "{}", self.text());
        Ended { code, text: self.text(), took }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        for id in self.processes() {
            succeeds("kill", &["-s", "KILL", &id]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a line reports that `rank` started `phase`; an empty `phase` matches any.
fn starts(line: &str, rank: usize, phase: &str) -> bool {
    let phase = match phase {
        "" => "phase=".to_owned(),
        phase => format!("phase=\"{phase}\""),
    };
    line.starts_with(&format!("[{rank}] "))
        && line.contains("phase started")
        && line.contains(&phase)
}

fn collect(from: impl Read + Send + 'static, into: &Arc<Mutex<Vec<String>>>) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    });
}

fn variables(id: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
    bytes.split(|&byte| byte == 0).map(|it| String::from_utf8_lossy(it).into_owned()).collect()
}

fn command_line(id: &str) -> String {
    let bytes = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    format!("{id}: {}", String::from_utf8_lossy(&bytes).replace('\0', " "))
}

/// The arguments of a run in the folder `run` that practically never ends.
pub(crate) fn endless(deadline: &str) -> Vec<&str> {
    let mut args = vec!["--log", "warn,embodied_r_dist=debug", "train", "--config", "run.toml"];
    args.extend(["--model", "model", "--data", "train.json", "--output", "run", "--no-pin"]);
    args.extend(["--deadline", deadline, "--set", "num_train_epochs=100000"]);
    args
}

/// Asserts that a run in `dir` resumes from its last checkpoint, for a few steps.
pub(crate) fn assert_resumes(dir: &Path) {
    let steps = || {
        let names = fs::read_dir(dir.join("run")).unwrap().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let steps = names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse::<u64>().ok());
        steps.max().unwrap_or_default()
    };
    let before = steps();
    // An epoch has two steps. Train until the end of an epoch after the last checkpoint.
    let epochs = format!("num_train_epochs={}", before / 2 + 2);
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["train", "--resume", "run", "--set", &epochs]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains(&format!("resuming from run/checkpoint-{before}")), "{stderr}");
    assert!(steps() > before, "{stderr}");
}
