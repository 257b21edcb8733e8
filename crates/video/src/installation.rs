//! Questions about the installed FFmpeg itself.

use std::io::{self, Read as _};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::process::Process;

/// Maximum size of an answer; a list of codecs has less than a tenth.
const MAX_BYTES: u64 = 4 << 20;

/// The standard output of `program`, `ffmpeg` or `ffprobe`, with `args` such as `-version`, within a minute.
///
/// # Errors
/// [`Error::FfmpegMissing`], or [`Error::FfmpegRun`] if it cannot be run, fails, or does not end.
pub fn ffmpeg_output(program: &'static str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    let deadline = Limits::default().for_metadata();
    let (process, output, _) = Process::start(program, &mut command, Stdio::null(), deadline)?;
    let mut text = Vec::new();
    output.take(MAX_BYTES).read_to_end(&mut text).map_err(Error::ffmpeg(program))?;
    let exit = process.finish()?;
    let failed = |what: String| Error::FfmpegRun { program, source: io::Error::other(what) };
    match (exit.killed, exit.success) {
        (None, true) => Ok(String::from_utf8_lossy(&text).into_owned()),
        (None, false) => Err(failed(format!("it failed: {}", exit.reason()))),
        (Some(_), _) => Err(failed("it does not end".to_owned())),
    }
}
